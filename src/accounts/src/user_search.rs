//! Finding users by the beginning of their id or by a part of their name.
//!
//! A search reads accounts and profiles a page at a time, up to a bound: no index is kept that each change of a name would have
//! to follow, and what it costs is limited by the searcher's rate. Who may find whom is decided above, where rooms are known.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use comity_storage::Row;
use serde_json::Value;

use crate::{
    AVATAR_URL, AccountError, Accounts, DISPLAY_NAME,
    profile::parse,
    tables::{Json, Profiles, UserKey},
};

/// Accounts read at a time.
const PAGE: usize = 1_000;
/// Accounts looked at in one search.
const MOST_READ: usize = 50_000;
/// Matches kept.
const MOST_FOUND: usize = 1_000;
/// Longest term, in bytes: no id is longer.
const MAX_TERM_BYTES: usize = 255;

/// A user with the profile by which they were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUser {
    /// Their id.
    pub user_id: String,
    /// Their display name.
    pub display_name: Option<String>,
    /// Their avatar.
    pub avatar_url: Option<String>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundUsers {
    /// The users, the best match first, and how well they fit.
    pub users: Vec<(Fit, FoundUser)>,
    /// Whether there may be more, not looked at.
    pub cut_short: bool,
}

/// How well a term fits, the better the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It is all of a name.
    Whole,
    /// It begins one, or an id.
    Start,
    /// It is a part of one.
    Part,
}

/// What is looked for: an id's beginning, or what a localpart or a display name contains, in whatever case.
#[derive(Debug)]
pub struct UserTerm(String);

impl UserTerm {
    /// Reads it.
    ///
    /// # Errors
    /// [`AccountError::InvalidParam`]: it is too long.
    pub fn new(term: &str) -> Result<Self, AccountError> {
        let term = term.trim().to_lowercase();
        if term.len() > MAX_TERM_BYTES {
            return Err(AccountError::InvalidParam("The search term is too long."));
        }
        Ok(Self(term))
    }

    /// Whether nobody is looked for: everybody would fit.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How well it fits a user; `None`: not at all.
    pub fn fit(&self, user: &FoundUser) -> Option<Fit> {
        let term = self.0.as_str();
        let id = user.user_id.to_lowercase();
        let localpart = id.trim_start_matches('@').split(':').next();
        let name = user.display_name.as_ref().map(|name| name.to_lowercase());
        let by_id = id.starts_with(term).then_some(Fit::Start);
        let by_text = |text: &str| {
            if text == term {
                Some(Fit::Whole)
            } else if text.starts_with(term) {
                Some(Fit::Start)
            } else {
                text.contains(term).then_some(Fit::Part)
            }
        };
        let fits = [
            by_id,
            localpart.and_then(by_text),
            name.as_deref().and_then(by_text),
        ];
        fits.into_iter().flatten().min()
    }
}

impl Accounts {
    /// The accounts that a term fits.
    ///
    /// # Errors
    /// The store's.
    pub async fn search_users(&self, term: &UserTerm) -> Result<FoundUsers, AccountError> {
        let mut found: Vec<(Fit, FoundUser)> = Vec::new();
        let (mut after, mut read) = (None, 0);
        let cut_short = loop {
            let page = self.users(after.as_deref(), PAGE).await?;
            let ids = page.iter().map(|(id, _)| UserKey(id.clone()));
            let ids: Vec<UserKey> = ids.collect();
            let profiles = self.0.tenant.reader().get_many::<Profiles>(&ids).await?;
            for ((user_id, user), profile) in page.iter().zip(profiles) {
                if user.deactivated {
                    continue;
                }
                let user = found_user(user_id, profile)?;
                if let Some(fit) = term.fit(&user) {
                    found.push((fit, user));
                }
            }
            read += page.len();
            let cut_short = read >= MOST_READ || found.len() >= MOST_FOUND;
            match page.last() {
                Some((last, _)) if page.len() == PAGE && !cut_short => after = Some(last.clone()),
                _ => break cut_short,
            }
        };
        // Those of a kind stay in the order of their ids.
        found.sort_by_key(|(fit, _)| *fit);
        Ok(FoundUsers {
            users: found,
            cut_short,
        })
    }
}

fn found_user(user_id: &str, profile: Option<Row<Json>>) -> Result<FoundUser, AccountError> {
    let profile = profile.map(|row| parse(&row.value)).transpose()?;
    let mut profile = profile.unwrap_or_default();
    let mut text = |field| match profile.remove(field) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    Ok(FoundUser {
        user_id: user_id.to_owned(),
        display_name: text(DISPLAY_NAME),
        // What users set as their avatar need not be one.
        avatar_url: text(AVATAR_URL).filter(|url| url.starts_with("mxc://")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_names_and_how_well_they_fit() {
        let user = FoundUser {
            user_id: "@user-1-alice:hs1".into(),
            display_name: Some("Älice Cooper".into()),
            avatar_url: None,
        };
        for (term, expected) in [
            ("älice cooper", Some(Fit::Whole)),
            ("user-1-alice", Some(Fit::Whole)),
            ("@user", Some(Fit::Start)),
            ("@user-1-alice:hs1", Some(Fit::Start)),
            ("cooper", Some(Fit::Part)),
            ("alice", Some(Fit::Part)),
            ("hs1", None),
            ("freddy", None),
        ] {
            let fit = UserTerm::new(term).unwrap().fit(&user);
            assert_eq!(fit, expected, "{term}");
        }
    }
}
