//! Writes a multi-platform image as an OCI image layout, the directory format that other clients read.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::content::{Manifest, OCI_CONFIG, bytes, descriptor, image, index, sha256};

const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Writes an image for each of the architectures, and an index over them by the name `tag`. Gives the index.
pub fn write(dir: &Path, tag: &str, architectures: &[&str]) -> Manifest {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory for the layout");
    let store = |content: &[u8]| {
        let name = &sha256(content)["sha256:".len()..];
        fs::write(blobs.join(name), content).expect("a blob of the layout");
    };
    let mut images = Vec::new();
    for architecture in architectures {
        let tars =
            [tar("etc/architecture", architecture.as_bytes()), tar("data", &bytes(architecture, 300_000))];
        let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/true"], "Labels": {"org.example.architecture": architecture}},
            "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|tar| sha256(tar)).collect::<Vec<_>>()},
            "history": tars.iter().map(|_| json!({"created_by": "a test"})).collect::<Vec<_>>(),
        });
        let config = config.to_string().into_bytes();
        let descriptors = layers.iter().map(|layer| descriptor(GZIP_LAYER, layer)).collect();
        let manifest = Manifest::new(&image(descriptor(OCI_CONFIG, &config), descriptors));
        layers.iter().chain([&config, &manifest.bytes]).for_each(|blob| store(blob));
        images.push(manifest);
    }
    let mut document = index(&images);
    for (position, architecture) in architectures.iter().enumerate() {
        document["manifests"][position]["platform"] = json!({"os": "linux", "architecture": architecture});
    }
    let multi = Manifest::new(&document);
    store(&multi.bytes);
    let mut entry: Value = multi.descriptor();
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let entries = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(dir.join("index.json"), entries.to_string()).expect("the layout's index");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("the layout's marker");
    multi
}

/// A tar archive (ustar) of one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", content.len()));
    field(136, "00000000000\0");
    field(148, "        0"); // the checksum counts as blanks; then the type: a file
    field(257, "ustar\x0000");
    let checksum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{checksum:06o}\0 ").as_bytes());
    let padding = content.len().next_multiple_of(512) - content.len();
    [&header[..], content, &vec![0; padding + 1024]].concat()
}

/// A gzip file (RFC 1952) that stores its content uncompressed.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = content.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let size = u16::try_from(block.len()).expect("a block is shorter than 64 KiB");
        file.push(u8::from(blocks.peek().is_none()));
        file.extend_from_slice(&size.to_le_bytes());
        file.extend_from_slice(&(!size).to_le_bytes());
        file.extend_from_slice(block);
    }
    file.extend_from_slice(&crc32(content).to_le_bytes());
    file.extend_from_slice(
        &u32::try_from(content.len()).expect("a layer is shorter than 4 GiB").to_le_bytes(),
    );
    file
}

fn crc32(content: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !content.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_has_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
