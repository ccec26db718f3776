//! Who came and who went between two states of a room.

use comity_protocol::auth::{MemberContent, Membership};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::RoomView;
use crate::{
    error::RoomError,
    num::EventNum,
    state::AnyRoot,
    tables::{self, RoomNum},
};

/// Entries of a state looked at in one go.
const PAGE: usize = 512;

/// Who is joined in one state and not in another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// Joined in the new one; those as well who have left and come back in between.
    pub came: Vec<String>,
    /// Joined in the old one alone.
    pub went: Vec<String>,
}

/// A member event of a state: whose it is, and whether they are joined.
struct Member {
    num: EventNum,
    user: String,
    is_joined: bool,
}

impl RoomView {
    /// Who came and who went between two states, as far as their members are known. [`AnyRoot::EMPTY`] is the state before
    /// anybody came.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn moved(&self, old: AnyRoot, new: AnyRoot) -> Result<Moved, RoomError> {
        let mut moved = Moved::default();
        let mut diff = self.trie.diff(old.known_members(), new.known_members());
        loop {
            let page = diff.next_page(PAGE).await?;
            if page.is_empty() {
                return Ok(moved);
            }
            let before = page.iter().map(|change| change.old.present());
            let after = page.iter().map(|change| change.new.present());
            let before = self.members_at(before.collect()).await?;
            let after = self.members_at(after.collect()).await?;
            for (before, after) in before.into_iter().zip(after) {
                let before = before.filter(|member| member.is_joined);
                match (before, after.filter(|member| member.is_joined)) {
                    (None, Some(after)) => moved.came.push(after.user),
                    (Some(before), None) => moved.went.push(before.user),
                    (Some(before), Some(after)) => {
                        if self.was_away(before.num, &after).await? {
                            moved.came.push(after.user);
                        }
                    }
                    (None, None) => {}
                }
            }
        }
    }

    /// Whether a membership doesn't directly follow the one before, as a new name does.
    async fn was_away(&self, before: EventNum, after: &Member) -> Result<bool, RoomError> {
        let Some(found) = self.load(&[after.num]).await?.pop() else {
            return Ok(true);
        };
        let Some(root) = found.root_before()? else {
            return Ok(true);
        };
        let keys = self.state_keys(&[("m.room.member", &after.user)]).await?;
        let replaced = self.lookup(root, &keys).await?.pop().flatten();
        Ok(replaced != Some(before))
    }

    /// What these member events say, where there is one.
    async fn members_at(
        &self,
        nums: Vec<Option<EventNum>>,
    ) -> Result<Vec<Option<Member>>, RoomError> {
        #[derive(Deserialize)]
        struct Body<'a> {
            state_key: String,
            #[serde(borrow)]
            content: &'a RawValue,
        }
        let damaged = || RoomError::Damaged("a member event of the state can't be read".into());
        let known: Vec<EventNum> = nums.iter().copied().flatten().collect();
        let keys: Vec<RoomNum> = known
            .iter()
            .map(|num| RoomNum {
                room: self.room,
                num: num.0,
            })
            .collect();
        let bodies = self.reader.get_many::<tables::Bodies>(&keys).await?;
        let mut members = Vec::with_capacity(bodies.len());
        for (num, body) in known.into_iter().zip(bodies) {
            let body = body.ok_or_else(damaged)?.value;
            let body: Body<'_> = serde_json::from_str(&body.json).map_err(|_| damaged())?;
            let membership = MemberContent::read(body.content.get()).membership;
            members.push(Member {
                num,
                user: body.state_key,
                is_joined: membership == Some(Membership::Join),
            });
        }
        let mut members = members.into_iter();
        Ok(nums
            .into_iter()
            .map(|num| num.and_then(|_| members.next()))
            .collect())
    }
}
