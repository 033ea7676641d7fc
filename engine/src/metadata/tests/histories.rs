//! Random histories, in the store and in the model.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::model::{self, Operation, State};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_as_the_model(history in proptest::collection::vec(model::operation(), 1..80)) {
        let storage = Arc::new(MemoryStorage::default());
        let mut metadata = open(&storage);
        let mut model = State::default();
        for (now, operation) in history.iter().enumerate() {
            let now = Timestamp(now as u64);
            let before = metadata.sequence();
            let model_before = model.clone();
            if matches!(operation, Operation::Reopen) {
                drop(metadata);
                metadata = open(&storage);
                prop_assert_eq!(metadata.sequence(), before);
            }
            let answer = model::run(&metadata, operation, now).expect("nothing fails");
            prop_assert_eq!(answer, model.run(operation, now), "{:?}", operation);
            let snapshot = metadata.snapshot().expect("a snapshot");
            prop_assert_eq!(&model::read(&snapshot).expect("readable"), &model, "{:?}", operation);
            let mut faults = Vec::new();
            let mut found = |finding: Finding| {
                // Contents of the model are not what their digests say.
                if finding.kind.is_fault() && finding.kind != FindingKind::InlineContent {
                    faults.push(finding);
                }
            };
            snapshot.check(&mut found, &|_| ControlFlow::Continue(())).expect("readable");
            prop_assert!(faults.is_empty(), "{faults:?} after {operation:?}");
            if model != model_before {
                prop_assert!(metadata.sequence() > before);
            }
        }
    }
}
