//! A storage that fails: every operation is done or not done, and what was acknowledged stays.

use std::io::ErrorKind;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::memory::Call;
use super::model::{self, Operation, State};
use super::*;

/// The same history each time.
pub(super) fn history(length: usize) -> Vec<Operation> {
    let mut runner = TestRunner::deterministic();
    let operations = proptest::collection::vec(model::operation(), length);
    operations.new_tree(&mut runner).expect("a value").current()
}

pub(super) fn state(metadata: &Metadata) -> State {
    model::read(&metadata.snapshot().expect("a snapshot")).expect("readable")
}

/// Runs the history with one fault; `false` where it was over before the fault came.
fn with_fault(
    history: &[Operation],
    part: Option<StoragePart>,
    call: Call,
    calls: u64,
    error: ErrorKind,
) -> bool {
    let storage = Arc::new(MemoryStorage::default());
    let mut metadata = open(&storage);
    let mut model = State::default();
    match part {
        Some(part) => storage.fail_once_in(part, call, calls, error),
        None => storage.fail_once(call, calls, error),
    }
    for (now, operation) in history.iter().enumerate() {
        let now = Timestamp(now as u64);
        if matches!(operation, Operation::Reopen) && !storage.fault_is_pending() {
            drop(metadata);
            metadata = open(&storage);
        }
        let sequence = metadata.sequence();
        let before = model.clone();
        let expected = model.run(operation, now);
        match model::run(&metadata, operation, now) {
            Ok(answer) => assert_eq!(answer, expected, "{operation:?}"),
            Err(failure) => {
                assert_eq!(failure.is_full(), error == ErrorKind::StorageFull, "{failure}");
                assert!(!storage.fault_is_pending());
                let found = state(&metadata);
                if found != model {
                    assert_eq!(found, before, "{call:?} {calls}: half of {operation:?}");
                    model = before;
                }
            }
        }
        assert!(metadata.sequence() >= sequence);
    }
    assert_eq!(state(&metadata), model);
    let came = !storage.fault_is_pending();
    storage.forget_faults();
    drop(metadata);
    assert_eq!(state(&open(&storage)), model, "{call:?} {calls}: not the same after opening again");
    came
}

#[test]
fn a_log_that_fails_leaves_no_half_of_an_operation() {
    let history = history(40);
    for call in [Call::Write, Call::Sync] {
        for error in [ErrorKind::Other, ErrorKind::StorageFull] {
            let faults =
                (0..).take_while(|calls| with_fault(&history, Some(StoragePart::Log), call, *calls, error));
            assert!(faults.count() > 10);
        }
    }
}

#[test]
fn a_batch_that_the_log_does_not_take_is_not_visible() {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open(&storage);
    save(&metadata, 1).expect("writes");
    let sequence = metadata.sequence();
    let before = metadata.snapshot().expect("a snapshot");
    storage.fail_once_in(StoragePart::Log, Call::Sync, 0, ErrorKind::Other);
    save(&metadata, 2).expect_err("fails");
    assert_eq!(metadata.sequence(), sequence);
    // Reading goes on, also where it has begun.
    for snapshot in [before, metadata.snapshot().expect("a snapshot")] {
        assert!(snapshot.stored_blob(&digest(1)).expect("readable").is_some());
        assert!(snapshot.stored_blob(&digest(2)).expect("readable").is_none());
    }
    save(&metadata, 3).expect("writes");
    let metadata = open(&Arc::new(storage.after_kill()));
    let snapshot = metadata.snapshot().expect("a snapshot");
    assert!(snapshot.stored_blob(&digest(2)).expect("readable").is_none(), "it was refused");
    assert!(snapshot.stored_blob(&digest(3)).expect("readable").is_some());
}

#[test]
fn who_closes_a_store_is_told_whether_it_is_complete_without_its_log() {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open(&storage);
    save(&metadata, 1).expect("writes");
    let other = metadata.clone();
    other.close().expect_err("somebody else has it");
    storage.fail_once_in(StoragePart::Tables, Call::Sync, 0, ErrorKind::StorageFull);
    assert!(metadata.close().expect_err("no checkpoint").is_full());
    let metadata = open(&storage);
    save(&metadata, 2).expect("writes");
    metadata.close().expect("complete");
    storage.remove(StoragePart::Log);
    let metadata = open(&storage);
    assert_eq!(metadata.snapshot().expect("a snapshot").statistics().blobs, 2);
    metadata.close().expect("there was nothing to do");
}

#[test]
fn without_a_checkpoint_reading_goes_on_and_writing_waits_for_it() {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open(&storage);
    save(&metadata, 1).expect("writes");
    // The log fails, and so do the checkpoint and the one of opening again.
    storage.fail_once_in(StoragePart::Log, Call::Sync, 0, ErrorKind::Other);
    storage.fail_once_in(StoragePart::Tables, Call::Sync, 0, ErrorKind::Other);
    storage.fail_once_in(StoragePart::Tables, Call::Sync, 2, ErrorKind::Other);
    save(&metadata, 2).expect_err("fails");
    let snapshot = metadata.snapshot().expect("a snapshot");
    assert!(snapshot.stored_blob(&digest(1)).expect("readable").is_some());
    assert!(snapshot.stored_blob(&digest(2)).expect("readable").is_none());
    save(&metadata, 3).expect("writes");
    let metadata = open(&Arc::new(storage.after_kill()));
    assert_eq!(metadata.snapshot().expect("a snapshot").statistics().blobs, 2);
}

#[test]
fn a_failed_flush_leaves_no_half_of_an_operation() {
    let history = history(60);
    let flushes = (0..).take_while(|calls| with_fault(&history, None, Call::Sync, *calls, ErrorKind::Other));
    assert!(flushes.count() > 10);
}

#[test]
fn a_failed_write_leaves_no_half_of_an_operation() {
    let history = history(60);
    let writes = (0..)
        .step_by(3)
        .take_while(|calls| with_fault(&history, None, Call::Write, *calls, ErrorKind::StorageFull));
    assert!(writes.count() > 10);
}

#[test]
fn a_full_disk_leaves_reading_and_deleting() {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open(&storage);
    let push = |number| {
        metadata.write_blocking(move |transaction| {
            let content = NewContent::Inline(vec![1; INLINE_SIZE_MAX].into());
            let digest = digest(number);
            transaction.commit_blob(&name("a"), &digest, 1, content, None, Timestamp(1))
        })
    };
    storage.leave(Some(500));
    let mut pushed = 0;
    let failure = loop {
        match push(pushed) {
            Ok(_) => pushed += 1,
            Err(failure) => break failure,
        }
    };
    assert!(failure.is_full(), "{failure}");
    assert!(pushed > 50, "{pushed}");

    // Reading goes on, and so does deleting, which makes room.
    let snapshot = metadata.snapshot().expect("a snapshot");
    let repository = snapshot.repository(&name("a")).expect("readable").expect("exists");
    // The one that failed may be there all the same, where the log had taken it.
    let is_there = snapshot.blob(repository, &digest(pushed)).expect("readable").is_some();
    pushed += u32::from(is_there);
    assert_eq!(snapshot.statistics().blobs, u64::from(pushed));
    for number in 0..pushed {
        assert!(snapshot.blob(repository, &digest(number)).expect("readable").is_some());
        assert!(snapshot.content(&digest(number), 0).expect("readable").is_some());
    }
    drop(snapshot);
    for number in 0..pushed / 2 {
        let removed = metadata.write_blocking(move |transaction| {
            transaction.unlink_blob(&name("a"), &digest(number))?;
            transaction.remove_unused_content(&digest(number))
        });
        assert!(removed.expect("deletes").is_some());
    }
    for number in 0..pushed / 4 {
        assert_eq!(push(number).expect("there is room"), BlobCommit::Stored);
    }

    storage.leave(None);
    for number in pushed..2 * pushed {
        push(number).expect("grows");
    }
}

#[test]
fn what_cannot_be_opened_again_is_tried_until_it_can() {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open(&storage);
    let save = |number| save(&metadata, number);
    // The flush of the log, that of the checkpoint in its place, and both ways of opening fail.
    let fail = || {
        for call in [Call::Sync, Call::Sync, Call::Open, Call::Open] {
            storage.fail_once(call, 0, ErrorKind::Other);
        }
    };
    save(1).expect("writes");
    let before = metadata.snapshot().expect("a snapshot");
    fail();
    save(2).expect_err("fails");
    assert!(matches!(metadata.snapshot(), Err(MetadataError::Unavailable)));
    assert!(!before.is_current(&metadata));
    save(3).expect("the storage is back");
    assert_eq!(metadata.snapshot().expect("a snapshot").statistics().blobs, 2);

    fail();
    save(4).expect_err("fails");
    let started = std::time::Instant::now();
    while metadata.snapshot().is_err() {
        assert!(started.elapsed().as_secs() < 20, "nobody tries");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn one_failure_answers_all_requests_of_the_batch() {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open(&storage);
    storage.fail_once(Call::Sync, 0, ErrorKind::Other);
    let (first, second) = (metadata.clone(), metadata.clone());
    // Holds the committer until the others are queued.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let blocker = std::thread::spawn(move || {
        first.write_blocking(move |transaction| {
            held.recv().expect("released");
            transaction.commit_blob(
                &name("a"),
                &digest(1),
                1,
                NewContent::File(FileId([1; 16])),
                None,
                Timestamp(1),
            )
        })
    });
    let write = second.write(|transaction| transaction.remove_upload(UploadId([0; 16])));
    release.send(()).expect("held");
    assert!(blocker.join().expect("no panic").is_err());
    // Queued before or after the failed commit, it is answered.
    drop(write);
    assert!(
        !second.write_blocking(|transaction| transaction.remove_upload(UploadId([0; 16]))).expect("goes on")
    );
    // Only the log had failed.
    assert_eq!(storage.opened(), 1);
}

#[test]
fn what_is_no_store_is_an_error() {
    let storage = Arc::new(MemoryStorage::default());
    drop(open(&storage));
    storage.overwrite(StoragePart::Tables, 0xA5);
    assert!(matches!(Metadata::open(storage, Options::default()), Err(MetadataError::Storage(_))));
}
