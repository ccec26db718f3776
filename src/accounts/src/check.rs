//! Whether the rows of accounts agree with one another: what `comity check` asks of them once each row by itself is as
//! its table writes it ([`comity_storage::check`]).
//!
//! Sessions, what was seen and what was dehydrated are of devices; a device, and a profile, of a user who is there and not deactivated;
//! global account data and filters are of users; what is left to do for a deactivated account is of one; room account data
//! names the room that its key is of. Nothing is written, and a page of rows is held at a time.

use comity_storage::{
    Lane, Pages, ReadError, Reader, RoomKey, Table, broken,
    check::{Contradiction, Listener},
    system::{Births, LaneKey},
};

use crate::tables::{
    AccountData, Deactivations, Dehydrated, Devices, Filters, LastSeen, Profiles, RoomAccountData,
    Sessions, UserKey, UserPart, Users,
};

/// Something that rows of accounts say differently.
pub type Finding = Contradiction<Broken>;

broken! {
    NoUser: "the user isn't there",
    Deactivated: "the account was deactivated",
    NoDevice: "the device isn't there",
    NotDeactivated: "the account wasn't deactivated",
    Incarnation: "it began in an incarnation to come",
    OtherRoom: "it names another room than its key",
}

/// Walks all accounts of a tenant.
///
/// On a store that is being written meanwhile, what is found need not be so.
///
/// # Errors
/// The store can't be read.
pub async fn tenant(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<(), ReadError> {
    let birth = reader.get::<Births>(&LaneKey(Lane(0))).await?;
    let incarnation = birth.map_or(0, |row| row.value.incarnation);
    let mut walk = Walk { reader, to };
    walk.of_users::<Devices>(|key| &key.user, true).await?;
    walk.of_users::<Profiles>(|key| &key.0, true).await?;
    // A request that came before the end may have been served after it.
    walk.of_users::<AccountData>(|key| &key.user, false).await?;
    walk.of_users::<Filters>(|key| &key.user, false).await?;
    walk.dehydrated().await?;
    walk.of_devices::<LastSeen>().await?;
    walk.of_devices::<Sessions>().await?;
    walk.each::<Sessions>(|_, session| {
        (session.incarnation > incarnation).then_some(Broken::Incarnation)
    })
    .await?;
    walk.each::<RoomAccountData>(|key, data| {
        (RoomKey::of(&data.room_id) != key.room).then_some(Broken::OtherRoom)
    })
    .await?;
    walk.deactivations().await
}

struct Walk<'a> {
    reader: &'a Reader,
    to: &'a mut dyn Listener<Finding>,
}

/// Whose a row is.
trait OfUser {
    fn user(&self) -> &str;
}

impl OfUser for UserPart {
    fn user(&self) -> &str {
        &self.user
    }
}

impl OfUser for crate::tables::UserRoomPart {
    fn user(&self) -> &str {
        &self.user
    }
}

impl Walk<'_> {
    /// Looks at each row by itself.
    async fn each<T: Table<Key: OfUser>>(
        &mut self,
        look: impl Fn(&T::Key, &T::Value) -> Option<Broken>,
    ) -> Result<(), ReadError> {
        let mut pages = Pages::<T>::all();
        while let Some(rows) = self.to.page(self.reader, &mut pages).await? {
            for (key, row) in &rows {
                if let Some(broken) = look(key, &row.value) {
                    self.to.say::<T>(key.user(), broken);
                }
            }
        }
        Ok(())
    }

    /// The users of these rows are there, and not deactivated if that `ends` such rows.
    async fn of_users<T: Table>(
        &mut self,
        user: impl Fn(&T::Key) -> &String,
        ends: bool,
    ) -> Result<(), ReadError> {
        let mut pages = Pages::<T>::all();
        while let Some(rows) = self.to.page(self.reader, &mut pages).await? {
            let mut keys: Vec<UserKey> = rows
                .iter()
                .map(|(key, _)| UserKey(user(key).clone()))
                .collect();
            keys.dedup();
            let users = self.reader.get_many::<Users>(&keys).await?;
            for (key, row) in keys.iter().zip(users) {
                match row {
                    None => self.to.say::<T>(&key.0, Broken::NoUser),
                    Some(row) if ends && row.value.deactivated => {
                        self.to.say::<T>(&key.0, Broken::Deactivated);
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// The devices of these rows are there.
    async fn of_devices<T: Table<Key = UserPart>>(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<T>::all();
        while let Some(rows) = self.to.page(self.reader, &mut pages).await? {
            let keys: Vec<UserPart> = rows.into_iter().map(|(key, _)| key).collect();
            let devices = self.reader.get_many::<Devices>(&keys).await?;
            for (key, _) in keys.iter().zip(devices).filter(|(_, row)| row.is_none()) {
                self.to.say::<T>(&key.user, Broken::NoDevice);
            }
        }
        Ok(())
    }

    async fn dehydrated(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Dehydrated>::all();
        while let Some(rows) = self.to.page(self.reader, &mut pages).await? {
            let keys = rows.into_iter().map(|(user, row)| UserPart {
                user: user.0,
                part: row.value.device_id,
            });
            let keys: Vec<UserPart> = keys.collect();
            let devices = self.reader.get_many::<Devices>(&keys).await?;
            for (key, _) in keys.iter().zip(devices).filter(|(_, row)| row.is_none()) {
                self.to.say::<Dehydrated>(&key.user, Broken::NoDevice);
            }
        }
        Ok(())
    }

    async fn deactivations(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Deactivations>::all();
        while let Some(rows) = self.to.page(self.reader, &mut pages).await? {
            let keys: Vec<UserKey> = rows.into_iter().map(|(key, _)| key).collect();
            let users = self.reader.get_many::<Users>(&keys).await?;
            for (key, row) in keys.iter().zip(users) {
                if !row.is_some_and(|row| row.value.deactivated) {
                    self.to.say::<Deactivations>(&key.0, Broken::NotDeactivated);
                }
            }
        }
        Ok(())
    }
}
