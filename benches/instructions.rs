//! Runs one part a number of times for `benches/instructions.sh`, which counts the
//! instructions. Prints the names of the parts without arguments.

mod parts;

use std::io::Write;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let asked = (arguments.next(), arguments.next());
    let (Some(name), Some(Ok(times))) = (asked.0, asked.1.map(|n| n.parse::<u32>())) else {
        let mut out = std::io::stdout();
        for (name, times, _) in PARTS {
            writeln!(out, "{name} {times}")?;
        }
        return Ok(());
    };
    let part = PARTS.iter().find(|(other, ..)| *other == name);
    let (.., prepare) = part.unwrap_or_else(|| panic!("no part is called {name}"));
    let mut step = prepare();
    for _ in 0..times {
        step();
    }
    Ok(())
}

/// A name, the number of runs, and the function that prepares the part.
type Part = (&'static str, u32, fn() -> Box<dyn FnMut()>);

const PARTS: [Part; 10] = [
    ("encode-128", 5_000, || Box::new(parts::encode(128))),
    ("encode-1024", 5_000, || Box::new(parts::encode(1024))),
    ("parse-head", 3_000, || Box::new(parts::parse_head())),
    ("publish", 5_000, || Box::new(parts::publish(1000))),
    ("publish-once", 5_000, || {
        Box::new(parts::publish_once(1000))
    }),
    ("deliver-to-1", 2_000, || Box::new(parts::deliver(1, 1))),
    ("deliver-to-1000", 200, || Box::new(parts::deliver(1000, 1))),
    ("deliver-32-to-1000", 200, || {
        Box::new(parts::deliver(1000, 32))
    }),
    ("visit", 1_000, || Box::new(parts::visit())),
    ("move-timer", 20_000, || Box::new(parts::move_timer(10_000))),
];
