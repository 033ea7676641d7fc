//! The parts whose cost shows in every push and pull.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::oci::{Algorithm, ContentHasher, Digest, Manifest, RepositoryName, media_type};

fn hashing(criterion: &mut Criterion) {
    for algorithm in Algorithm::ALL {
        let mut group = criterion.benchmark_group(format!("hash {}", algorithm.name()));
        for size in [4 << 10, 1 << 20] {
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

criterion_group!(parts, hashing, parsing);
criterion_main!(parts);
