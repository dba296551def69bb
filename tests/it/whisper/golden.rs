//! Files that the Python package has made (`tests/whisper/make_golden.py`): they need no Python to be compared with.

use std::fs;
use std::path::Path;

use chunkstore::whisper::{Aggregation, Header, Point, Retention, WhisperFile};
use serde_json::Value;

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

/// Returns a file of the package, and what it says about it.
fn golden(aggregation: Aggregation) -> (Vec<u8>, Value) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("whisper/golden");
    let path = directory.join(aggregation.name());
    let bytes = fs::read(path.with_extension("wsp")).unwrap();
    let text = fs::read_to_string(path.with_extension("json")).unwrap();
    (bytes, serde_json::from_str(&text).unwrap())
}

#[test]
fn golden_files_decode_and_encode() {
    for aggregation in Aggregation::ALL {
        let (bytes, _) = golden(aggregation);
        let header = Header::decode(&bytes[..Header::LEN_MAX.min(bytes.len())], 412).unwrap();
        assert_eq!(header.aggregation(), aggregation);
        assert_eq!(header.encode(), bytes[..header.header_len()]);
        assert_eq!(header.file_len(), bytes.len() as u64);
        assert_eq!(WhisperFile::decode(bytes.clone()).unwrap().into_bytes(), bytes);
    }
}

#[test]
fn golden_files_read_as_the_package_reads_them() {
    for aggregation in Aggregation::ALL {
        let (bytes, content) = golden(aggregation);
        let file = WhisperFile::decode(bytes).unwrap();
        let now = number(&content["now"]);
        let mut known_count = 0;
        for reading in content["readings"].as_array().unwrap() {
            let series = file.fetch(number(&reading["from"]), now, now).unwrap();
            let expected: Vec<Option<f64>> =
                reading["values"].as_array().unwrap().iter().map(Value::as_f64).collect();
            assert_eq!(series.values, expected);
            known_count += expected.iter().flatten().count();
            let found = [series.from, series.until, series.seconds_per_point.into()];
            assert_eq!(serde_json::json!(found), reading["series"]);
        }
        assert!(0 < known_count, "{aggregation:?}");
    }
}

#[test]
fn golden_histories_give_the_same_bytes() {
    for aggregation in Aggregation::ALL {
        let (bytes, content) = golden(aggregation);
        let archives = content["archives"].as_array().unwrap();
        let retentions = archives.iter().map(|pair| Retention {
            seconds_per_point: number(&pair[0]),
            points: number(&pair[1]),
        });
        let retentions: Vec<Retention> = retentions.collect();
        // Its bits are those of an f32.
        let factor = content["x_files_factor"].to_string().parse().unwrap();
        let mut file = WhisperFile::create(aggregation, factor, &retentions).unwrap();
        for step in content["history"].as_array().unwrap() {
            let point = Point { time: number(&step[1]), value: step[2].as_f64().unwrap() };
            file.update(point, number(&step[0])).unwrap();
        }
        assert!(file.bytes() == bytes, "{aggregation:?}");
    }
}
