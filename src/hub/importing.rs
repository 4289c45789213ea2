//! A journal that begins with a saved state, or is a copy of another one.

use std::io::{self, Read, Seek};
use std::path::Path;

use super::clock::Clock;
use super::for_all::NAME_OF_ALL;
use super::journal::identity_of;
use super::manager::{ChannelManager, ChannelManagerBuilder};
use super::saved::{Origin, Restored};
use crate::journal::disk::Directory;
use crate::journal::error::JournalError;
use crate::journal::store::{Store, StoreOptions};

impl ChannelManagerBuilder {
    /// Begins a journal in an empty directory with what
    /// [`ChannelManager::save`](crate::ChannelManager::save) has written. A later
    /// [`open_journal`](Self::open_journal) goes on where the state ended: ids go on, and
    /// clients resume without a gap.
    ///
    /// The state is copied as it is, so the options of channels do not matter. Do not
    /// restore it afterwards: the journal is its future.
    ///
    /// # Errors
    /// When the state cannot be restored, there is a journal in the directory, or a file
    /// cannot be written.
    ///
    /// # Panics
    /// When the options of a name do.
    pub fn import_journal(
        self,
        directory: impl AsRef<Path>,
        mut state: impl Read + Seek,
    ) -> Result<(), JournalError> {
        let options = |name: &str| self.options_by_name.of(name);
        let for_all = options(NAME_OF_ALL).history;
        let restored = Restored::read(
            &mut state,
            &Clock::system(),
            self.settings,
            Origin::State,
            for_all,
            options,
        );
        let restored = restored.map_err(JournalError::State)?;
        let identity = identity_of(&restored.ids);
        let disk = Directory::lock(directory.as_ref())?;
        Store::import(&disk, &StoreOptions::new(identity), restored.at, |to| {
            state.rewind()?;
            io::copy(&mut state, to).map(drop)
        })
    }
}

impl ChannelManager {
    /// Prepares a restored copy of a journal to be opened. Clients may have seen events that
    /// the copy does not have: their ids are not given again, and clients that come back with
    /// one receive a `pushwheel.gap` event with the reason `lost`.
    ///
    /// A copy that is opened without this gives these ids to other events, which clients
    /// that have seen the former ones skip.
    ///
    /// # Errors
    /// When there is no journal in the directory, or it cannot be opened.
    pub fn prepare_journal_copy(directory: impl AsRef<Path>) -> Result<(), JournalError> {
        let directory = directory.as_ref();
        // Locking would make it.
        if !directory.is_dir() {
            let path = directory.to_owned();
            return Err(JournalError::Missing { path });
        }
        Store::prepare_copy(Directory::lock(directory)?, StoreOptions::new(Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use crate::{
        ChannelManager, ChannelOptions, Event, History, JournalError, JournalOptions, RestoreError,
    };

    #[test]
    fn a_journal_goes_on_where_a_saved_state_ended() {
        let name = format!("pushwheel-import-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let options = || ChannelOptions::new().history(History::events(10));
        let builder = || ChannelManager::builder().defaults(options());
        let before = builder().build();
        let news = before.get_or_create("news").unwrap();
        news.broadcast(Event::message("1").with_id("own-1"))
            .unwrap();
        let last = news.broadcast(Event::message("2")).unwrap().id.unwrap();
        let mut state = Vec::new();
        before.save(&mut state).unwrap();

        let torn = Cursor::new(&state[..state.len() - 1]);
        let error = builder().import_journal(&directory, torn).unwrap_err();
        assert!(
            matches!(error, JournalError::State(RestoreError::Damaged { .. })),
            "{error}"
        );
        let import = || builder().import_journal(&directory, Cursor::new(&state));
        import().unwrap();
        let error = import().unwrap_err();
        assert!(matches!(error, JournalError::NotEmpty { .. }), "{error}");

        let after = builder()
            .open_journal(&directory, JournalOptions::new())
            .unwrap();
        let news = after.get("news").unwrap();
        assert_eq!(after.stats().channel_stats[0].newest.as_ref(), Some(&last));
        let again = news
            .broadcast(Event::message("1").with_id("own-1"))
            .unwrap();
        assert_eq!(again.duplicates, 1);
        let next = news.broadcast(Event::message("3")).unwrap().id.unwrap();
        assert!(next > last, "{next} {last}");
        after.close_journal().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
