//! What a log promises to nodes.

use std::time::{Duration, SystemTime};

use pushwheel::cluster::{
    Appended, BrokerError, Hello, Memory, NewBlock, SharedLog, SnapshotName, StoredSnapshot,
    TERMS_MAX, Term, WriterEnd,
};

use crate::server::{Server, TIMEOUT, block, eventually, newcomer, read_all, reader, writer};

const META: &str = "{pushwheel}:meta";
const LOG: &str = "{pushwheel}:log";

/// Returns the first number of a term that begins now.
fn number_of_now() -> u64 {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    Term::first_at(u64::try_from(since_1970).unwrap(), 0)
}

#[test]
fn an_empty_server_gets_a_log_from_a_node_that_has_an_identity() {
    let server = Server::start();
    let log = server.log();
    let nothing = Hello::new(1, 0, None);
    let empty = log.open_writer(&nothing, TIMEOUT).map(drop);
    assert_eq!(empty, Err(BrokerError::Empty));
    let before = number_of_now();
    let (_, welcome) = writer(&log);
    let after = number_of_now();
    assert_eq!(welcome.identity, b"identity");
    let first = welcome.next;
    assert!(
        (before..=after).contains(&first),
        "{before} {first} {after}"
    );
    assert_eq!(welcome.terms, [Term { after: 0, first }]);
    assert_eq!(welcome.oldest, None);
    assert!(welcome.wall_ms > 1_767_225_600_000);
    // The next one finds it, and needs nothing for it.
    let (_, found) = log.open_reader(&nothing, TIMEOUT).unwrap();
    assert_eq!(
        (found.identity, found.terms, found.next),
        (welcome.identity, welcome.terms, first)
    );
}

#[test]
fn blocks_have_numbers_without_holes_and_are_read_in_their_order() {
    let server = Server::start();
    let log = server.log();
    let (mut writer, welcome) = writer(&log);
    let mut reader = reader(&log);
    let mut next = welcome.next;
    for n in 1..=40 {
        let bytes = format!("block {n}\r\n\0");
        let appended = writer
            .append(block(n, n, bytes.as_bytes()), TIMEOUT)
            .unwrap();
        let was_there = false;
        assert_eq!(
            appended,
            Appended {
                first: next,
                was_there
            }
        );
        next += n;
    }
    let blocks = read_all(&mut *reader, 0).unwrap();
    assert_eq!(blocks.len(), 40);
    let mut next = welcome.next;
    for (n, block) in (1..).zip(&blocks) {
        assert_eq!(block.first, next);
        assert_eq!(block.bytes, format!("block {n}\r\n\0").into_bytes());
        assert!(block.wall_ms.abs_diff(welcome.wall_ms) < 60_000);
        next += n;
    }
    // After the last one there is nothing, until something is appended.
    let last = blocks.last().unwrap().first;
    assert_eq!(read_all(&mut *reader, last).unwrap(), []);
    writer.append(block(41, 1, b"news"), TIMEOUT).unwrap();
    assert_eq!(read_all(&mut *reader, last).unwrap()[0].first, next);
    let found = reader.welcome(&newcomer(), TIMEOUT).unwrap();
    assert_eq!((found.next, found.oldest), (next + 1, Some(welcome.next)));
}

#[test]
fn a_read_waits_for_a_block() {
    let server = Server::start();
    let log = server.log();
    let (mut writer, welcome) = writer(&log);
    let mut reader = reader(&log);
    std::thread::scope(|threads| {
        let read = threads.spawn(|| {
            let mut blocks = Vec::new();
            reader
                .read(0, 1 << 20, TIMEOUT, TIMEOUT, &mut blocks)
                .unwrap();
            blocks
        });
        eventually("the reader waits", || {
            server
                .run::<String>(&["INFO", "clients"])
                .contains("blocked_clients:1")
        });
        writer.append(block(1, 1, b"x"), TIMEOUT).unwrap();
        assert_eq!(read.join().unwrap()[0].first, welcome.next);
    });
}

#[test]
fn a_block_that_is_sent_again_is_there_once() {
    let server = Server::start();
    let log = server.log();
    let (mut one, welcome) = writer(&log);
    let first = welcome.next;
    one.append(block(1, 3, b"a"), TIMEOUT).unwrap();
    one.append(block(2, 1, b"b"), TIMEOUT).unwrap();
    let was_there = true;
    // By another session, as after a connection that died; also an older one.
    let (mut again, _) = writer(&log);
    for n in [2, 1] {
        let appended = again.append(block(n, 1, b"b"), TIMEOUT).unwrap();
        assert_eq!(
            appended,
            Appended {
                first: first + 3,
                was_there
            }
        );
    }
    let other = NewBlock {
        writer: 2,
        ..block(1, 1, b"c")
    };
    let was_there = false;
    let appended = again.append(other, TIMEOUT).unwrap();
    assert_eq!(
        appended,
        Appended {
            first: first + 4,
            was_there
        }
    );
    assert_eq!(read_all(&mut *reader(&log), 0).unwrap().len(), 3);
    // A writer that is forgotten could append it again.
    again.forget_writers(&[2, 3], TIMEOUT).unwrap();
    again.forget_writers(&[], TIMEOUT).unwrap();
    assert!(!again.append(other, TIMEOUT).unwrap().was_there);
    assert!(again.append(block(2, 1, b"b"), TIMEOUT).unwrap().was_there);
}

#[test]
fn another_process_of_the_server_begins_a_term() {
    let mut server = Server::start();
    let log = server.log();
    let (mut writer_before, welcome) = writer(&log);
    writer_before.append(block(1, 5, b"a"), TIMEOUT).unwrap();
    server.restart(&[]);
    server.await_answer();
    let gone = writer_before.append(block(2, 1, b"b"), TIMEOUT);
    assert!(
        matches!(gone, Err(BrokerError::Unreachable { .. })),
        "{gone:?}"
    );
    let before = number_of_now();
    let (mut writer, next) = writer(&log);
    assert!(next.next >= before);
    let after = welcome.next + 4;
    let terms = [
        welcome.terms[0],
        Term {
            after,
            first: next.next,
        },
    ];
    assert_eq!(next.terms, terms);
    // Only once.
    assert_eq!(
        log.open_reader(&newcomer(), TIMEOUT).unwrap().1.terms,
        terms
    );
    let appended = writer.append(block(2, 1, b"b"), TIMEOUT).unwrap();
    assert_eq!(appended.first, next.next);
    let firsts = read_all(&mut *reader(&log), 0).unwrap();
    let firsts: Vec<u64> = firsts.iter().map(|block| block.first).collect();
    assert_eq!(firsts, [welcome.next, next.next]);
}

#[test]
fn a_session_of_an_earlier_term_or_another_log_appends_nothing() {
    let server = Server::start();
    let log = server.log();
    let (mut writer_before, _) = writer(&log);
    let _: u32 = server.run(&["HSET", META, "run", "another"]);
    let moved = writer_before.append(block(1, 1, b"a"), TIMEOUT);
    assert_eq!(moved, Err(BrokerError::Moved));
    let _: u32 = server.run(&["HSET", META, "run", "another", "identity", "other"]);
    let (mut writer_of_other, welcome) = writer(&log);
    assert_eq!(
        (welcome.identity, welcome.terms.len()),
        (b"other".to_vec(), 2)
    );
    writer_of_other.append(block(1, 1, b"a"), TIMEOUT).unwrap();
    let moved = writer_before.append(block(1, 1, b"a"), TIMEOUT);
    assert_eq!(moved, Err(BrokerError::Moved));
    let _: String = server.run(&["FLUSHALL"]);
    let moved = writer_of_other.append(block(2, 1, b"a"), TIMEOUT);
    assert_eq!(moved, Err(BrokerError::Moved));
    assert_eq!(server.run::<u32>(&["EXISTS", LOG]), 0);
}

#[test]
fn a_server_that_has_lost_numbers_begins_a_term_beyond_them() {
    let server = Server::start();
    let log = server.log();
    let (_, welcome) = writer(&log);
    // A node has seen more than there is. Its clock may be ahead.
    let known = number_of_now() + 3_600_000 * 1_024;
    let ahead = Hello::new(1, known, newcomer().memory);
    let (_, next) = log.open_writer(&ahead, TIMEOUT).unwrap();
    assert_eq!(next.next, known + 1 + (1 << 24));
    let after = welcome.next - 1;
    assert_eq!(
        next.terms[1],
        Term {
            after,
            first: next.next
        }
    );
    // What is known is given now.
    let (_, same) = log.open_writer(&ahead, TIMEOUT).unwrap();
    assert_eq!(same.terms, next.terms);
    // The oldest terms are forgotten.
    let mut known = next.next;
    for _ in 0..TERMS_MAX {
        let ahead = Hello::new(1, known, None);
        known = log.open_reader(&ahead, TIMEOUT).unwrap().1.next;
    }
    let (_, welcome) = writer(&log);
    assert_eq!(welcome.terms.len(), TERMS_MAX);
    assert_eq!(welcome.terms.last().unwrap().first, known);
}

#[test]
fn an_empty_server_gets_what_a_node_remembers() {
    let server = Server::start();
    let log = server.log();
    let terms = [
        Term {
            after: 0,
            first: 10,
        },
        Term {
            after: 12,
            first: 20,
        },
    ];
    let end = WriterEnd {
        writer: 1,
        n: 7,
        first: 21,
    };
    let writers = [end];
    let memory = Memory::new(b"\x00\xff", &terms, 22, &writers);
    // What is left of the log before has nothing to do with it.
    let _: String = server.run(&["XADD", LOG, "99-0", "b", "?"]);
    let (mut writer, welcome) = log
        .open_writer(&Hello::new(1, 30, Some(memory)), TIMEOUT)
        .unwrap();
    assert_eq!(welcome.identity, b"\x00\xff");
    let first = welcome.next;
    assert_eq!(
        welcome.terms,
        [terms[0], terms[1], Term { after: 22, first }]
    );
    assert_eq!(welcome.oldest, None);
    let was_there = true;
    let appended = writer.append(block(7, 1, b"in doubt"), TIMEOUT).unwrap();
    assert_eq!(
        appended,
        Appended {
            first: 21,
            was_there
        }
    );
    assert!(
        !writer
            .append(block(8, 1, b"new"), TIMEOUT)
            .unwrap()
            .was_there
    );
}

#[test]
fn a_term_that_no_block_is_of_is_not_begun_again() {
    let server = Server::start();
    let log = server.log();
    let (_, welcome) = writer(&log);
    let memory = Memory::new(b"identity", &welcome.terms, 0, &[]);
    let (_, again) = log
        .open_writer(&Hello::new(1, 0, Some(memory)), TIMEOUT)
        .unwrap();
    assert_eq!(again.terms, welcome.terms);
    // By an empty server, too, no number is given twice.
    let far = [Term {
        after: 0,
        first: number_of_now() * 2,
    }];
    let _: String = server.run(&["FLUSHALL"]);
    let memory = Memory::new(b"identity", &far, 0, &[]);
    let (_, begun) = log
        .open_writer(&Hello::new(1, 0, Some(memory)), TIMEOUT)
        .unwrap();
    assert!(begun.next > far[0].first);
}

#[test]
fn trimming_removes_blocks_that_end_before_a_number() {
    let server = Server::start();
    let log = server.log();
    let (mut writer, welcome) = writer(&log);
    writer.trim(0, TIMEOUT).unwrap();
    writer.trim(welcome.next, TIMEOUT).unwrap();
    for n in 1..=10 {
        writer.append(block(n, 10, b"x"), TIMEOUT).unwrap();
    }
    let oldest = |writer: &mut dyn pushwheel::cluster::LogWriter, before| {
        writer.trim(welcome.next + before, TIMEOUT).unwrap();
        let (_, now) = log.open_reader(&newcomer(), TIMEOUT).unwrap();
        now.oldest.unwrap() - welcome.next
    };
    assert_eq!(oldest(&mut *writer, 5), 0);
    assert_eq!(oldest(&mut *writer, 15), 10);
    assert_eq!(oldest(&mut *writer, 40), 30);
    assert_eq!(oldest(&mut *writer, 41), 40);
    assert_eq!(oldest(&mut *writer, 7), 40);
    let blocks = read_all(&mut *reader(&log), 0).unwrap();
    assert_eq!(blocks[0].first, welcome.next + 40);
}

#[test]
fn a_lease_is_of_one_writer_until_it_ends() {
    let server = Server::start();
    let log = server.log();
    let (mut one, _) = writer(&log);
    let (mut other, _) = log.open_writer(&Hello::new(2, 0, None), TIMEOUT).unwrap();
    let long = Duration::from_secs(60);
    assert_eq!(one.lease("keeper", long, TIMEOUT), Ok(true));
    assert_eq!(other.lease("keeper", long, TIMEOUT), Ok(false));
    assert_eq!(other.lease("another", long, TIMEOUT), Ok(true));
    // It is renewed, also to a shorter time.
    assert_eq!(
        one.lease("keeper", Duration::from_millis(1), TIMEOUT),
        Ok(true)
    );
    eventually("the lease ends", || {
        other.lease("keeper", long, TIMEOUT).unwrap()
    });
    assert_eq!(one.lease("keeper", long, TIMEOUT), Ok(false));
}

#[test]
fn the_newest_complete_snapshot_is_read() {
    let server = Server::start();
    let log = server.log();
    let (mut writer, _) = writer(&log);
    let mut reader = reader(&log);
    assert_eq!(reader.snapshot(TIMEOUT), Ok(None));
    let name = |at, writer| SnapshotName { at, writer };
    let stored = |name| StoredSnapshot { name, chunks: 2 };
    let chunk_of = |index: u32| index.to_string().repeat(512 << 10).into_bytes();
    let mut put = |name, chunks: &[u32]| {
        for index in chunks {
            let chunk = chunk_of(*index);
            writer
                .put_snapshot_chunk(name, *index, &chunk, TIMEOUT)
                .unwrap();
        }
        writer.complete_snapshot(stored(name), TIMEOUT)
    };
    let incomplete = put(name(5, 1), &[0]);
    assert!(
        matches!(incomplete, Err(BrokerError::Damaged { .. })),
        "{incomplete:?}"
    );
    assert_eq!(reader.snapshot(TIMEOUT), Ok(None));
    // A chunk that is sent twice is there once.
    put(name(10, 1), &[0, 1, 1, 0]).unwrap();
    assert_eq!(reader.snapshot(TIMEOUT), Ok(Some(stored(name(10, 1)))));
    for index in 0..2 {
        let chunk = reader
            .snapshot_chunk(name(10, 1), index, TIMEOUT)
            .unwrap()
            .unwrap();
        assert_eq!(chunk, chunk_of(index));
    }
    assert_eq!(reader.snapshot_chunk(name(10, 1), 2, TIMEOUT), Ok(None));
    // The one of another writer replaces it; an older one does not.
    put(name(11, u128::MAX), &[0, 1]).unwrap();
    assert_eq!(reader.snapshot_chunk(name(10, 1), 0, TIMEOUT), Ok(None));
    put(name(9, 3), &[0, 1]).unwrap();
    let newest = stored(name(11, u128::MAX));
    assert_eq!(reader.snapshot(TIMEOUT), Ok(Some(newest)));
    assert_eq!(reader.snapshot_chunk(name(9, 3), 0, TIMEOUT), Ok(None));
    // The answer may have been lost.
    put(name(11, u128::MAX), &[]).unwrap();
    // A complete one stays, and chunks of one that is never completed go.
    let ttl = |key: &str| server.run::<i64>(&["TTL", key]);
    let newest = "{pushwheel}:chunks:11:ffffffffffffffffffffffffffffffff";
    assert_eq!(ttl(newest), -1);
    assert!((1..=3_600).contains(&ttl(
        "{pushwheel}:chunks:5:00000000000000000000000000000001"
    )));
    let chunks: Vec<String> = server.run(&["KEYS", "{pushwheel}:chunks:*"]);
    assert_eq!(chunks.len(), 2, "{chunks:?}");
}

#[test]
fn a_value_is_taken_once_in_its_time() {
    let server = Server::start();
    let log = server.log();
    let (mut one, _) = writer(&log);
    let (mut other, _) = writer(&log);
    let long = Duration::from_secs(60);
    let (key, value) = (b"\xff\0key".as_slice(), b"\xff\0value".as_slice());
    one.put_value(key, value, long, TIMEOUT).unwrap();
    assert_eq!(other.take_value(key, TIMEOUT), Ok(Some(value.to_vec())));
    assert_eq!(one.take_value(key, TIMEOUT), Ok(None));
    one.put_value(b"a", value, long, TIMEOUT).unwrap();
    one.put_value(b"a", value, Duration::from_millis(1), TIMEOUT)
        .unwrap();
    eventually("it expires", || {
        server.run::<u32>(&["EXISTS", "{pushwheel}:value:a"]) == 0
    });
    assert_eq!(one.take_value(b"a", TIMEOUT), Ok(None));
}

#[test]
fn clusters_of_different_names_have_different_logs() {
    use pushwheel_redis::{OptionsError, RedisLog, RedisOptions};
    let server = Server::start();
    let named = |name| {
        RedisLog::new(
            server.url().parse().unwrap(),
            &RedisOptions::new().name(name),
        )
    };
    let (mut one, _) = writer(&named("one").unwrap());
    one.append(block(1, 1, b"x"), TIMEOUT).unwrap();
    let other = named("other").unwrap();
    let empty = other
        .open_reader(&Hello::new(1, 0, None), TIMEOUT)
        .map(drop);
    assert_eq!(empty, Err(BrokerError::Empty));
    assert!(matches!(named("a b"), Err(OptionsError::Name)));
    let keys: Vec<String> = server.run(&["KEYS", "*"]);
    assert!(keys.iter().all(|key| key.starts_with("{one}:")), "{keys:?}");
}
