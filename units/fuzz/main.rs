//! Fuzzes everything that reads a user's text, on stable and without tools:
//!
//! ```text
//! cargo run -p flotilla-units --example fuzz -- --seconds 60 [--seed N]
//! cargo run -p flotilla-units --example fuzz -- FILE...
//! ```
//!
//! It changes the files of `units/fuzz/corpus` at random and reads what comes out. An input that fails
//! is written to `target/fuzz-failure`; put it into the corpus, which the tests replay, and mend the code.

use std::{env, fs, panic, path::Path, process::ExitCode, time::Duration, time::Instant};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");
const FAILURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/fuzz-failure");

/// What inputs are changed with: the pieces on which the grammar turns.
const PIECES: [&str; 42] = [
    "\n",
    "\r",
    "\\",
    "\\\n",
    "=",
    "[",
    "]",
    "#",
    ";",
    "\"",
    "'",
    "%",
    "%i",
    "@",
    "*",
    "\u{feff}",
    "\0",
    "ü",
    "[X-Flotilla]\n",
    "[Service]\n",
    "MachineOf=",
    "MachineMetadata=",
    "Conflicts=",
    "\\x",
    "!",
    "<=",
    ">",
    "(",
    ")",
    ",",
    " in (",
    " not in (",
    "-",
    ".",
    "~",
    "Prefer=",
    "Spread=",
    "ReserveCPU=",
    "ReserveMemory=",
    "Reserve=",
    "ReservePort=",
    "MemoryMax=",
];

/// SplitMix64: enough to choose what to change, and the seed says everything.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let (a, b) = (self.below(input.len() + 1), self.below(input.len() + 1));
        let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 64));
        match self.below(6) {
            0 => drop(input.drain(from..to)),
            1 => input.insert(from, self.below(256) as u8),
            2 => input.extend_from_within(from..to),
            3 if from < input.len() => input[from] ^= 1 << self.below(8),
            4 => {
                let other = &corpus[self.below(corpus.len())];
                let start = self.below(other.len() + 1);
                let end = (start + self.below(200)).min(other.len());
                input.splice(from..from, other[start..end].iter().copied());
            }
            _ => drop(input.splice(from..from, PIECES[self.below(PIECES.len())].bytes())),
        }
    }
}

fn fails(input: &[u8]) -> bool {
    panic::catch_unwind(|| flotilla_units::fuzz(input)).is_err()
}

fn run(seconds: u64, seed: u64) -> Result<bool, Box<dyn std::error::Error>> {
    let mut corpus = Vec::new();
    for entry in fs::read_dir(CORPUS)? {
        corpus.push(fs::read(entry?.path())?);
    }
    if corpus.is_empty() {
        return Err(format!("{CORPUS} has no files to start from").into());
    }
    let mut dice = Dice(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0_u64;
    while Instant::now() < end {
        let mut input = corpus[dice.below(corpus.len())].clone();
        for _ in 0..=dice.below(8) {
            dice.change(&mut input, &corpus);
        }
        count += 1;
        if fails(&input) {
            fs::write(FAILURE, &input)?;
            println!("input {count} of seed {seed} failed; it is in {FAILURE}");
            return Ok(false);
        }
    }
    println!("{count} inputs of seed {seed}, none failed");
    Ok(true)
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (mut seconds, mut seed, mut good, mut files) = (10, 1, true, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => seconds = rest.next().ok_or("--seconds needs a number")?.parse()?,
            "--seed" => seed = rest.next().ok_or("--seed needs a number")?.parse()?,
            file => {
                files = true;
                good &= !fails(&fs::read(Path::new(file))?);
            }
        }
    }
    if !files {
        good = run(seconds, seed)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
