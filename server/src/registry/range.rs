//! Byte ranges: of a blob that is asked for (RFC 9110, section 14), and of a chunk that is uploaded (OCI distribution
//! specification, "Pushing a blob in chunks").

use http::HeaderValue;

/// What a `Range` field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: no field, another unit, several ranges, or no range at all.
    Whole,
    /// From an offset, so many bytes.
    Part { start: u64, len: u64 },
    /// Nothing that exists.
    Unsatisfiable,
}

/// Reads a `Range` field for content of `size` bytes.
pub(super) fn wanted(range: Option<&HeaderValue>, size: u64) -> Wanted {
    let Some(ranges) =
        range.and_then(|value| value.to_str().ok()).and_then(|value| value.trim().split_once('='))
    else {
        return Wanted::Whole;
    };
    let (unit, range) = ranges;
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Wanted::Whole };
    let number = |text: &str| -> Option<u64> {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number that is too large is as good as the largest.
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        // RFC 9110 would have it ignored; the specification's conformance suite wants it refused.
        (Some(first), Some(last)) if first > last => Wanted::Unsatisfiable,
        (Some(first), _) if first >= size && (last.is_empty() || number(last).is_some()) => {
            Wanted::Unsatisfiable
        }
        (Some(first), Some(last)) => Wanted::Part { start: first, len: last.min(size - 1) - first + 1 },
        (Some(first), None) if last.is_empty() => Wanted::Part { start: first, len: size - first },
        (None, Some(0)) if first.is_empty() => Wanted::Unsatisfiable,
        (None, Some(_)) if first.is_empty() && size == 0 => Wanted::Unsatisfiable,
        (None, Some(suffix)) if first.is_empty() => {
            let len = suffix.min(size);
            Wanted::Part { start: size - len, len }
        }
        _ => Wanted::Whole,
    }
}

/// Reads the `Content-Range` of a chunk, `first-last`; also in the forms `bytes first-last/size` and
/// `bytes=first-last` that some clients send. Returns offset and length; `None` where it is malformed.
pub(super) fn chunk(range: &HeaderValue) -> Option<(u64, u64)> {
    let text = range.to_str().ok()?.trim();
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches([' ', '=']));
    let text = text.split('/').next()?;
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let text = text.trim();
        if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
    };
    let (first, last) = (number(first)?, number(last)?);
    let len = last.checked_sub(first)?.checked_add(1)?;
    Some((first, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        let part = |start, len| Wanted::Part { start, len };
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-", part(0, 10)),
            ("bytes=2-5", part(2, 4)),
            ("bytes=2-500", part(2, 8)),
            ("bytes=9-9", part(9, 1)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-300", part(0, 10)),
            ("bytes=0-99999999999999999999999", part(0, 10)),
            ("Bytes=1-2", part(1, 2)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-20", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-2", Wanted::Unsatisfiable),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=1-a", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(&HeaderValue::from_static(range)), 10), expected, "{range}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        for range in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(wanted(Some(&HeaderValue::from_static(range)), 0), Wanted::Unsatisfiable, "{range}");
        }
    }

    #[test]
    fn chunks() {
        for (range, expected) in [
            ("0-9", Some((0, 10))),
            ("10-10", Some((10, 1))),
            ("bytes 0-9/10", Some((0, 10))),
            ("bytes=0-9", Some((0, 10))),
            ("9-0", None),
            ("0-", None),
            ("-9", None),
            ("", None),
            ("a-b", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(chunk(&HeaderValue::from_static(range)), expected, "{range}");
        }
    }
}
