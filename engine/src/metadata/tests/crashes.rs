//! Power losses and killed processes at any point: what was acknowledged is there afterwards, and nothing is torn.

use super::faults::{history, state};
use super::model::{self, Operation, State};
use super::*;

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// What became of a storage that lost its power, with a way of losing that is chosen anew each time.
fn after_power_loss(storage: &MemoryStorage, random: &mut Random) -> Arc<MemoryStorage> {
    let kept_of_four = random.next(5);
    Arc::new(storage.after_power_loss(|| random.next(4) < kept_of_four))
}

/// Opens a storage whose power goes again while it is opened, some times.
fn open_at_last(mut storage: Arc<MemoryStorage>, random: &mut Random) -> (Arc<MemoryStorage>, Metadata) {
    for _ in 0..random.next(4) {
        storage.cut_power_after(random.next(40));
        drop(Metadata::open(storage.clone(), OPTIONS));
        storage = after_power_loss(&storage, random);
    }
    let metadata = open(&storage);
    (storage, metadata)
}

#[test]
fn power_losses_lose_nothing_that_was_acknowledged_and_tear_nothing() {
    for seed in 1..=40 {
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let operations: Vec<Operation> = history(100);
        let mut storage = Arc::new(MemoryStorage::default());
        let mut metadata = open(&storage);
        let mut model = State::default();
        storage.cut_power_after(random.next(400));
        for (now, operation) in operations.iter().enumerate() {
            let now = Timestamp(now as u64);
            let sequence = metadata.sequence();
            let before = model.clone();
            let expected = model.run(operation, now);
            match model::run(&metadata, operation, now) {
                Ok(answer) => assert_eq!(answer, expected, "{operation:?}"),
                Err(_) => {
                    let lost = after_power_loss(&storage, &mut random);
                    drop(metadata);
                    (storage, metadata) = open_at_last(lost, &mut random);
                    let found = state(&metadata);
                    if found != model {
                        assert_eq!(found, before, "seed {seed}: half of {operation:?}");
                        model = before;
                    }
                    assert!(metadata.sequence() >= sequence, "seed {seed}");
                    storage.cut_power_after(random.next(400));
                }
            }
        }
    }
}

#[test]
fn a_killed_process_leaves_all_that_was_acknowledged() {
    let mut storage = Arc::new(MemoryStorage::default());
    let mut metadata = open(&storage);
    let mut model = State::default();
    for (now, operation) in history(200).iter().enumerate() {
        let now = Timestamp(now as u64);
        assert_eq!(model::run(&metadata, operation, now).expect("writes"), model.run(operation, now));
        if now.0.is_multiple_of(3) {
            let sequence = metadata.sequence();
            storage = Arc::new(storage.after_kill());
            metadata = open(&storage);
            assert_eq!(metadata.sequence(), sequence);
            assert_eq!(state(&metadata), model);
        }
    }
}

#[test]
fn after_a_clean_end_the_log_is_not_needed() {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open(&storage);
    save(&metadata, 1).expect("writes");
    let sequence = metadata.sequence();
    drop(metadata);
    storage.remove(StoragePart::Log);
    let metadata = open(&storage);
    assert_eq!(metadata.sequence(), sequence);
    save(&metadata, 2).expect("writes");
}

#[test]
fn the_log_of_another_store_is_left_alone() {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open(&storage);
    for number in 0..40 {
        save(&metadata, number).expect("writes");
    }
    let killed = Arc::new(storage.after_kill());
    killed.remove(StoragePart::Tables);
    let metadata = open(&killed);
    assert_eq!(metadata.sequence(), 1);
    save(&metadata, 1).expect("writes");
    let sequence = metadata.sequence();
    let metadata = open(&Arc::new(killed.after_kill()));
    assert_eq!(metadata.sequence(), sequence);
    assert_eq!(metadata.snapshot().expect("a snapshot").statistics().blobs, 1);
}
