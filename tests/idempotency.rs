//! Publishes that can be repeated: an idempotency key, a condition on the newest event, and
//! the end of a channel in one step with its last event. Publishes to several channels.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "common/temporary.rs"]
mod temporary;

use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use pushwheel::{
    Channel, ChannelManager, ChannelManagerBuilder, ChannelOptions, ENTRIES_OF_PUBLISH_MAX, Event,
    EventError, EventId, History, IdempotencyKey, JournalOptions, JournalSync, PublishError,
    PublishOptions, Published, Rate, Start, Target,
};
use temporary::Temporary;

fn keeping() -> ChannelManagerBuilder {
    ChannelManager::builder().defaults(ChannelOptions::new().history(History::events(10_000)))
}

fn open(directory: &Temporary) -> ChannelManager {
    let options = JournalOptions::new().sync(JournalSync::Every(Duration::from_millis(10)));
    keeping().open_journal(&directory.0, options).unwrap()
}

fn keyed(key: &str) -> PublishOptions {
    PublishOptions::new().idempotency_key(IdempotencyKey::new(key))
}

fn publish(channel: &Channel, data: &str, key: &str) -> Result<Published, PublishError> {
    channel.publish_with([Event::message(data.to_owned())], &keyed(key))
}

fn data(channel: &Channel) -> Vec<String> {
    let all = channel.read(Start::Earliest);
    all.map(|stored| stored.unwrap().event.data().to_owned())
        .collect()
}

/// Managers with and without a journal.
fn both(name: &str) -> [(ChannelManager, Option<Temporary>); 2] {
    let directory = Temporary::new(name);
    let journaled = open(&directory);
    [(keeping().build(), None), (journaled, Some(directory))]
}

#[test]
fn a_publish_that_is_repeated_with_its_key_is_done_once() {
    for (manager, _directory) in both("once") {
        let channel = manager.get_or_create("news").unwrap();
        let events = || ["1", "2"].map(Event::message);
        let first = channel.publish_with(events(), &keyed("k")).unwrap();
        assert_eq!((first.events, first.is_repeated), (2, false));
        publish(&channel, "3", "other").unwrap();
        let again = channel.publish_with(events(), &keyed("k")).unwrap();
        let repeated = Published::clone(&first);
        assert!(again.is_repeated);
        assert_eq!(
            (again.id, again.events, again.clients, again.duplicates),
            (repeated.id, 2, 0, 0)
        );
        assert_eq!(data(&channel), ["1", "2", "3"]);
        // Another body, another order, another target.
        for events in [["1", "3"], ["2", "1"]] {
            let events = events.map(Event::message);
            let refused = channel.publish_with(events, &keyed("k"));
            assert_eq!(refused, Err(PublishError::KeyReused));
        }
        let to_one = keyed("k").target(Target::Client("ann".parse().unwrap()));
        let refused = channel.publish_with(events(), &to_one);
        assert_eq!(refused, Err(PublishError::KeyReused));
        // Each channel has keys of its own.
        let other = manager.get_or_create("other").unwrap();
        assert!(!publish(&other, "1", "k").unwrap().is_repeated);
        assert!(publish(&other, "1", "k").unwrap().is_repeated);
    }
}

#[test]
fn a_key_is_known_after_its_channel_was_removed_and_its_events_are_evicted() {
    let options = ChannelOptions::new().history(History::events(1));
    let manager = ChannelManager::builder().defaults(options).build();
    let channel = manager.get_or_create("news").unwrap();
    let first = publish(&channel, "1", "k").unwrap();
    publish(&channel, "2", "l").unwrap();
    assert_eq!(publish(&channel, "1", "k").unwrap().id, first.id);
    manager.remove("news");
    let channel = manager.get_or_create("news").unwrap();
    assert_eq!(publish(&channel, "1", "k").unwrap().id, first.id);
    assert!(data(&channel).is_empty());
}

#[test]
fn a_key_of_a_publish_to_all_channels_is_apart_from_those_of_channels() {
    for (manager, _directory) in both("all") {
        let channel = manager.get_or_create("news").unwrap();
        publish(&channel, "1", "k").unwrap();
        let key = IdempotencyKey::new("k");
        let to_all =
            |text: &'static str| manager.publish_keyed(&[Event::message(text)], Target::All, key);
        let first = to_all("all").unwrap();
        assert!(!first.is_repeated);
        let again = to_all("all").unwrap();
        assert!(again.is_repeated && again.id == first.id && again.events == 1);
        assert_eq!(to_all("other"), Err(PublishError::KeyReused));
        assert_eq!(data(&channel), ["1", "all"]);
    }
}

#[test]
fn events_with_own_ids_have_the_first_result_too() {
    for (manager, _directory) in both("own-ids") {
        let channel = manager.get_or_create("news").unwrap();
        let own = |id: &'static str| Event::message(id).with_id(id);
        channel.broadcast(own("a")).unwrap();
        // Nothing of it is appended, and its key is known nevertheless.
        let first = channel.publish_with([own("a")], &keyed("k")).unwrap();
        assert_eq!((first.events, first.duplicates), (0, 1));
        let refused = channel.publish_with([own("b")], &keyed("k"));
        assert_eq!(refused, Err(PublishError::KeyReused));
        let both = || [own("a"), own("c")];
        let first = channel.publish_with(both(), &keyed("l")).unwrap();
        let again = channel.publish_with(both(), &keyed("l")).unwrap();
        assert_eq!((again.events, again.duplicates), (1, 1));
        assert_eq!(
            (again.id.unwrap(), first.id.unwrap()),
            ("c".parse().unwrap(), "c".parse().unwrap())
        );
        assert_eq!(data(&channel), ["a", "c"]);
    }
}

#[test]
fn a_publish_on_a_condition_is_done_if_the_event_is_the_newest() {
    for (manager, _directory) in both("newest") {
        let channel = manager.get_or_create("news").unwrap();
        let other = manager.get_or_create("other").unwrap();
        let after = |id: &EventId, data: &'static str| {
            let options = PublishOptions::new().if_newest(id.clone());
            channel.publish_with([Event::message(data)], &options)
        };
        let one = publish(&channel, "1", "k").unwrap().id.unwrap();
        // Events of other channels make no difference.
        publish(&other, "x", "k").unwrap();
        let position = channel.position();
        let two = after(&one, "2").unwrap().id.unwrap();
        for stale in [&one, &position] {
            let newest = Some(two.clone());
            assert_eq!(after(stale, "?"), Err(PublishError::NotNewest { newest }));
        }
        // A position behind it is one at which it is the newest.
        publish(&other, "y", "l").unwrap();
        after(&channel.position(), "3").unwrap();
        let own = channel
            .broadcast(Event::message("4").with_id("four"))
            .unwrap()
            .id
            .unwrap();
        after(&own, "5").unwrap();
        assert!(matches!(
            after(&own, "?"),
            Err(PublishError::NotNewest { .. })
        ));
        for unknown in ["never-published", "0000016-99", "0000016-0"] {
            let unknown = unknown.parse().unwrap();
            let refused = after(&unknown, "?");
            assert!(
                matches!(refused, Err(PublishError::NotNewest { .. })),
                "{refused:?}"
            );
        }
        assert_eq!(data(&channel), ["1", "2", "3", "4", "5"]);
    }
}

#[test]
fn a_repeated_publish_is_known_before_its_condition_is_checked() {
    let manager = ChannelManager::new();
    let channel = manager.get_or_create("news").unwrap();
    let one = publish(&channel, "1", "k").unwrap().id.unwrap();
    let options = keyed("l").if_newest(one);
    let second = || channel.publish_with([Event::message("2")], &options);
    let first = second().unwrap();
    assert_eq!(second().unwrap().id, first.id);
}

#[test]
fn the_last_event_ends_its_channel_and_can_be_repeated() {
    for (manager, _directory) in both("finish") {
        let channel = manager.get_or_create("answer").unwrap();
        let options = keyed("end").finishing();
        let end = || channel.publish_with([Event::message("done")], &options);
        let first = end().unwrap();
        assert!(channel.is_finished());
        let again = end().unwrap();
        assert!(again.is_repeated && again.id == first.id);
        assert_eq!(publish(&channel, "more", "k"), Err(PublishError::Finished));
        assert_eq!(data(&channel), ["done"]);
        // The same event without the end is another publish.
        let refused = channel.publish_with([Event::message("done")], &keyed("end"));
        assert_eq!(refused, Err(PublishError::KeyReused));
        // Also without an event.
        let empty = manager.get_or_create("empty").unwrap();
        let options = keyed("end").finishing();
        let end = || empty.publish_with([] as [Event<'_>; 0], &options);
        assert_eq!(end().unwrap().id, end().unwrap().id);
        assert!(empty.is_finished());
    }
}

#[test]
fn keys_conditions_and_ends_survive_a_saved_state_and_a_killed_process() {
    let directory = Temporary::new("killed");
    let managers = [keeping().build(), open(&directory)];
    for manager in &managers {
        let channel = manager.get_or_create("answer").unwrap();
        publish(&channel, "1", "one").unwrap();
        let options = keyed("end").finishing();
        let done = [Event::message("done")];
        channel.publish_with(done, &options).unwrap();
        let key = IdempotencyKey::new("all");
        let all = [Event::message("to all")];
        manager.publish_keyed(&all, Target::All, key).unwrap();
    }
    let mut state = Vec::new();
    managers[0].save(&mut state).unwrap();
    let killed = directory.killed("killed-copy");
    let restored = [keeping().restore(&*state).unwrap(), open(&killed)];
    for (before, after) in managers.iter().zip(&restored) {
        let channel = after.get("answer").unwrap();
        assert!(channel.is_finished());
        assert_eq!(data(&channel), ["1", "done"]);
        let before = before.get("answer").unwrap();
        for channel in [&before, &channel] {
            assert!(publish(channel, "1", "one").unwrap().is_repeated);
            assert_eq!(publish(channel, "2", "one"), Err(PublishError::KeyReused));
        }
        let options = keyed("end").finishing();
        let end = |channel: &Channel| channel.publish_with([Event::message("done")], &options);
        assert_eq!(end(&before).unwrap().id, end(&channel).unwrap().id);
        let key = IdempotencyKey::new("all");
        let all = [Event::message("to all")];
        let again = after.publish_keyed(&all, Target::All, key).unwrap();
        assert!(again.is_repeated);
    }
}

fn names(manager: &ChannelManager, names: &[&str]) -> Vec<Channel> {
    let channels = names
        .iter()
        .map(|name| manager.get_or_create(name).unwrap());
    channels.collect()
}

#[test]
fn several_channels_have_an_event_under_one_id_and_keep_their_orders() {
    for (manager, directory) in both("several") {
        let [a, b, c] = ["a", "b", "c"].map(|name| manager.get_or_create(name).unwrap());
        a.broadcast(Event::message("1")).unwrap();
        let events = ["2", "3"].map(Event::message);
        // The order is of no account, and a channel that is named twice counts once.
        let channels = [b.clone(), a.clone(), b.clone()];
        let published = manager.publish_to(&channels, &events, None).unwrap();
        assert_eq!((published.events, published.clients), (2, 0));
        b.broadcast(Event::message("4")).unwrap();
        assert_eq!(data(&a), ["1", "2", "3"]);
        assert_eq!(data(&b), ["2", "3", "4"]);
        assert!(data(&c).is_empty());
        for channel in [&a, &b] {
            let all = channel.read(Start::Earliest).map(Result::unwrap);
            let third = all.into_iter().find(|stored| stored.event.data() == "3");
            assert_eq!(Some(third.unwrap().id), published.id);
        }
        let counts = manager
            .stats()
            .channel_stats
            .into_iter()
            .map(|stats| stats.published);
        assert_eq!(counts.collect::<Vec<_>>(), [3, 3, 0]);
        let nothing: [Event<'_>; 0] = [];
        assert_eq!(
            manager
                .publish_to(&channels, &nothing, None)
                .unwrap()
                .events,
            0
        );
        assert_eq!(manager.publish_to(&[], &events, None).unwrap().events, 0);
        if let Some(directory) = directory {
            let again = open(&directory.killed("several-killed"));
            let [a, b] = ["a", "b"].map(|name| again.get(name).unwrap());
            assert_eq!(
                (data(&a), data(&b)),
                (data(&channels[1]), data(&channels[0]))
            );
        }
    }
}

#[test]
fn none_of_several_channels_has_an_event_that_one_of_them_rejects() {
    for (manager, _directory) in both("several-none") {
        let keeping = || ChannelOptions::new().history(History::events(10));
        let slow = || keeping().publish_rate(Rate::per_second(0.01).burst(1));
        let a = manager.get_or_create_with("a", slow).unwrap();
        let small = || keeping().event_bytes_max(100);
        let small = manager.get_or_create_with("small", small).unwrap();
        let finished = manager.get_or_create("finished").unwrap();
        finished.finish(None).unwrap();
        let closed = manager.get_or_create("closed").unwrap();
        closed.close();
        let spent = manager.get_or_create_with("z", slow).unwrap();
        spent.broadcast(Event::message("spent")).unwrap();
        let to = |other: &Channel, event: Event<'static>| {
            manager.publish_to(&[a.clone(), other.clone()], &[event], None)
        };
        let message = || Event::message("?");
        assert_eq!(to(&finished, message()), Err(PublishError::Finished));
        assert_eq!(to(&closed, message()), Err(PublishError::Closed));
        let large = Event::message("x".repeat(200));
        assert!(matches!(
            to(&small, large),
            Err(PublishError::TooLarge { .. })
        ));
        let limited = to(&spent, message());
        assert!(matches!(limited, Err(PublishError::RateLimited { .. })));
        let with_id = to(&small, message().with_id("own"));
        assert_eq!(with_id, Err(EventError::IdOfSeveral.into()));
        let many = vec![message(); ENTRIES_OF_PUBLISH_MAX / 2 + 1];
        let refused = manager.publish_to(&[a.clone(), small.clone()], &many, None);
        let (entries, max) = (ENTRIES_OF_PUBLISH_MAX + 2, ENTRIES_OF_PUBLISH_MAX);
        assert_eq!(refused, Err(PublishError::TooManyEntries { entries, max }));
        assert!(data(&a).is_empty() && data(&small).is_empty());
        // None of these has cost a part of the rate.
        to(&small, Event::message("all")).unwrap();
        assert_eq!(
            (data(&a), data(&small)),
            (vec!["all".to_owned()], vec!["all".to_owned()])
        );
    }
}

#[test]
fn a_key_of_several_channels_is_theirs_and_outlives_a_process() {
    let directory = Temporary::new("several-key");
    let managers = [keeping().build(), open(&directory)];
    let publish = |manager: &ChannelManager, to: &[&str], text: &'static str| {
        let key = IdempotencyKey::new("k");
        manager.publish_to(&names(manager, to), &[Event::message(text)], key)
    };
    let firsts = managers.each_ref().map(|manager| {
        let first = publish(manager, &["a", "b"], "1").unwrap();
        assert_eq!((first.events, first.is_repeated), (1, false));
        first
    });
    let mut state = Vec::new();
    managers[0].save(&mut state).unwrap();
    let killed = directory.killed("several-key-copy");
    let restored = [keeping().restore(&*state).unwrap(), open(&killed)];
    let [one, two] = firsts;
    for (manager, first) in managers
        .iter()
        .chain(&restored)
        .zip([&one, &two, &one, &two])
    {
        let again = publish(manager, &["b", "a"], "1").unwrap();
        assert!(again.is_repeated && again.id == first.id && again.events == 1);
        assert_eq!(
            publish(manager, &["a", "b"], "2"),
            Err(PublishError::KeyReused)
        );
        for name in ["a", "b"] {
            assert_eq!(data(&manager.get(name).unwrap()), ["1"]);
        }
        // Other channels have other keys, and one alone has its own.
        assert!(!publish(manager, &["a", "c"], "2").unwrap().is_repeated);
        assert!(!publish(manager, &["b"], "3").unwrap().is_repeated);
        let b = manager.get("b").unwrap();
        let again = b.publish_with([Event::message("3")], &keyed("k")).unwrap();
        assert!(again.is_repeated);
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// It is done, and its publisher does not learn that.
    AnswerLost,
    /// It does not arrive.
    RequestLost,
}

/// What happens next: a request of one of the publishers, or something to the server.
#[derive(Clone, Copy, Debug)]
enum Step {
    Request(usize, Fate),
    /// It is restarted with its saved state.
    Restart,
    Sweep,
}

const PUBLISHERS: usize = 8;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop::sample::select(&[Fate::Answered, Fate::AnswerLost, Fate::RequestLost][..]);
    let step = prop_oneof![
        40 => (0..PUBLISHERS, fate).prop_map(|(publisher, fate)| Step::Request(publisher, fate)),
        1 => Just(Step::Restart),
        2 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 1..300)
}

/// The events of a publisher's request: one to three, and each with its place.
fn request_of(publisher: usize, request: usize) -> Vec<String> {
    (0..=request % 3)
        .map(|n| format!("{publisher}.{request}.{n}"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lost_answers_and_retries_give_each_event_once_and_in_order(steps in steps()) {
        let mut manager = keeping().build();
        let mut done = [0; PUBLISHERS];
        // Requests that were done, whether or not their publishers know.
        let mut through = [0; PUBLISHERS];
        let mut has_swept = false;
        for step in steps {
            match step {
                Step::Request(_, Fate::RequestLost) => {}
                Step::Request(publisher, fate) => {
                    let channel = manager.get_or_create("answers").unwrap();
                    let request = done[publisher];
                    let events = request_of(publisher, request);
                    let events = events.iter().map(|data| Event::message(data.as_str()));
                    let options = keyed(&format!("{publisher}/{request}"));
                    let published = channel.publish_with(events, &options).unwrap();
                    let is_repeated = through[publisher] > request;
                    prop_assert_eq!(published.is_repeated, is_repeated);
                    through[publisher] = request + 1;
                    if let Fate::Answered = fate {
                        done[publisher] += 1;
                    }
                }
                Step::Restart => {
                    let mut state = Vec::new();
                    manager.save(&mut state).unwrap();
                    manager = keeping().restore(&*state).unwrap();
                }
                Step::Sweep => {
                    manager.remove_empty();
                    has_swept = true;
                }
            }
        }
        // What the last sweep has left of the history is in the publishers' orders.
        let channel = manager.get_or_create("answers").unwrap();
        let all = data(&channel);
        for (publisher, through) in through.into_iter().enumerate() {
            let own = format!("{publisher}.");
            let found: Vec<&String> = all.iter().filter(|data| data.starts_with(&own)).collect();
            let done: Vec<String> = (0..through)
                .flat_map(|request| request_of(publisher, request))
                .collect();
            prop_assert!(done.iter().collect::<Vec<_>>().ends_with(&found), "{:?}", found);
            prop_assert!(has_swept || found.len() == done.len());
        }
    }
}

#[test]
fn retries_of_eight_publishers_over_a_journal_and_its_restarts_give_each_event_once() {
    const REQUESTS: usize = 60;
    let directory = Temporary::new("threads");
    let mut next = [0; PUBLISHERS];
    for life in 0..3 {
        let manager = open(&directory);
        let threads: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let channel = manager.get_or_create("answers").unwrap();
                let begin = next[publisher];
                let end = (life + 1) * REQUESTS / 3;
                thread::spawn(move || {
                    let mut rng = fastrand::Rng::with_seed((life * PUBLISHERS + publisher) as u64);
                    let mut request = begin;
                    while request < end {
                        let events = request_of(publisher, request);
                        let events = events.iter().map(|data| Event::message(data.as_str()));
                        let options = keyed(&format!("{publisher}/{request}"));
                        if rng.u8(..3) == 0 {
                            // Nothing waits for the answer: the next try may be at once.
                            channel.publish_with_then(events, &options, |_| {});
                            continue;
                        }
                        match channel.publish_with(events, &options) {
                            Ok(_) => request += 1,
                            Err(PublishError::KeyInFlight { .. }) => thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                    request
                })
            })
            .collect();
        for (thread, next) in threads.into_iter().zip(&mut next) {
            *next = thread.join().unwrap();
        }
    }
    let all = data(&open(&directory).get("answers").unwrap());
    for publisher in 0..PUBLISHERS {
        let own = format!("{publisher}.");
        let found: Vec<&String> = all.iter().filter(|data| data.starts_with(&own)).collect();
        let wanted: Vec<String> = (0..REQUESTS)
            .flat_map(|n| request_of(publisher, n))
            .collect();
        assert_eq!(found, wanted.iter().collect::<Vec<_>>());
    }
}
