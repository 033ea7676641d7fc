//! The parts whose cost shows in every push and pull.

use std::hint::black_box;
use std::{env, fs, process};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::metadata::{Metadata, NewContent, Timestamp};
use engine::oci::{Algorithm, ContentHasher, Digest, Manifest, RepositoryName, media_type};

fn hashing(criterion: &mut Criterion) {
    for algorithm in Algorithm::ALL {
        let mut group = criterion.benchmark_group(format!("hash {}", algorithm.name()));
        for size in [64 << 10, 1 << 20] {
            let content = vec![0xA5; size];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(format!("{} KiB", size >> 10), |bencher| {
                let mut hasher = ContentHasher::new(algorithm);
                bencher.iter(|| hasher.update(black_box(&content)));
            });
        }
        group.finish();
    }
}

fn parsing(criterion: &mut Criterion) {
    let digest = ContentHasher::digest(Algorithm::Sha256, b"");
    let layer = format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":1}}"#
    );
    let body = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":1}},"layers":[{}]}}"#,
        vec![layer; 12].join(",")
    );
    criterion.bench_function("parse a manifest of 12 layers", |bencher| {
        bencher.iter(|| Manifest::parse(Some(media_type::OCI_MANIFEST), black_box(body.as_bytes())));
    });
    let text = digest.to_string();
    criterion.bench_function("parse a digest", |bencher| bencher.iter(|| black_box(&text).parse::<Digest>()));
    criterion.bench_function("parse a name", |bencher| {
        bencher.iter(|| black_box("team/project/app-1").parse::<RepositoryName>());
    });
}

/// One blob a transaction, by one caller: what a push waits for beside its bytes. `TMPDIR` says on which filesystem.
fn commits(criterion: &mut Criterion) {
    let directory = env::temp_dir().join(format!("registry-bench-parts-{}", process::id()));
    fs::create_dir_all(&directory).expect("the temporary directory can be written");
    let metadata = Metadata::open_file(directory.join("metadata.redb"), 64 << 20).expect("a new store opens");
    let repository: RepositoryName = "bench/commits".parse().expect("a name");
    let mut number = 0_u64;
    criterion.bench_function("commit a blob of 100 bytes", |bencher| {
        bencher.iter(|| {
            number += 1;
            let digest = ContentHasher::digest(Algorithm::Sha256, &number.to_le_bytes());
            let repository = repository.clone();
            metadata.write_blocking(move |transaction| {
                let content = NewContent::Inline(vec![0; 100].into());
                transaction.commit_blob(&repository, &digest, 100, content, None, Timestamp(number))
            })
        });
    });
    drop(metadata);
    fs::remove_dir_all(&directory).expect("what was made can be removed");
}

criterion_group!(parts, hashing, parsing, commits);
criterion_main!(parts);
