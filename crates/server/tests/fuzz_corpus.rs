//! The checks of the fuzz targets for every input in `fuzz/corpus`: the seeds, and all inputs
//! that fuzzing has kept. `tests/run fuzz` generates others.

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/checks/mod.rs"]
mod checks;

#[test]
fn every_input_of_the_corpus_passes_its_check() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, check) in checks::ALL {
        let inputs = fs::read_dir(corpus.join(name)).expect("each target has a corpus");
        let mut paths: Vec<_> = inputs.map(|input| input.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "the corpus of {name} is empty");
        for path in paths {
            // The last line of a failing test's output names its input.
            println!("{}", path.display());
            check(&fs::read(&path).unwrap());
        }
    }
}

#[test]
fn every_target_is_in_the_manifest_and_replayed() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let mut targets: Vec<_> = fs::read_dir(fuzz.join("fuzz_targets"))
        .unwrap()
        .map(|target| target.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    targets.sort();
    let replayed: Vec<_> = checks::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, replayed);
    for name in replayed {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

/// The corpus has few inputs for the model, which has grown since. These are more.
#[test]
fn a_log_does_as_its_twin_on_drawn_inputs() {
    let (_, check) = checks::ALL
        .iter()
        .find(|(name, _)| *name == "log")
        .expect("the log has a check");
    for seed in 0..2_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let steps: Vec<u8> = (0..rng.usize(10..600)).map(|_| rng.u8(..)).collect();
        println!("seed {seed}");
        check(&steps);
    }
}

/// The corpus has few inputs. These are more: those of the corpus with a few changes.
#[test]
fn replies_of_a_broker_are_the_same_in_pieces_on_drawn_inputs() {
    let (_, check) = checks::ALL
        .iter()
        .find(|(name, _)| *name == "redis_reply")
        .expect("the replies have a check");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/redis_reply");
    let mut paths: Vec<_> = fs::read_dir(corpus)
        .unwrap()
        .map(|input| input.unwrap().path())
        .collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    const PROTOCOL: &[u8] = b"+-:$*\r\n%~|>_#,(=!019";
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut input = inputs[rng.usize(..inputs.len())].clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..=input.len());
            match rng.u8(..4) {
                0 => input.truncate(at),
                1 if at < input.len() => _ = input.remove(at),
                2 if at < input.len() => input[at] = rng.u8(..),
                _ => input.insert(at, PROTOCOL[rng.usize(..PROTOCOL.len())]),
            }
        }
        println!("seed {seed}: {}", input.escape_ascii());
        check(&input);
    }
}
