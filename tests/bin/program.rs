//! A program whose `main` runs in a sandbox, and ends as its argument says.

use std::io::{self, Read as _, Write as _};
use std::process::{self, ExitCode};
use std::{env, thread};

use belljar::isolated;
use nix::sys::signal::{Signal, raise};
use nix::unistd::{Pid, gethostname, getppid};

#[isolated(net, timeout = "60s", hostname = "program")]
fn main() -> Result<ExitCode, String> {
    assert_eq!(getppid(), Pid::from_raw(1), "not in a sandbox");
    let argument = env::args().nth(1).unwrap_or_default();
    match argument.as_str() {
        "error" => return Err("an error".to_owned()),
        "status" => return Ok(ExitCode::from(3)),
        "panic" => panic!("on purpose"),
        "panic elsewhere" => drop(thread::spawn(|| panic!("on purpose")).join()),
        "exit" => process::exit(0),
        "signal" => raise(Signal::SIGTERM).map_err(|errno| errno.to_string())?,
        "leave" => drop(process::Command::new("sleep").arg("1000").spawn().map_err(|error| error.to_string())?),
        "read" => {
            let mut input = String::new();
            let length = io::stdin().read_to_string(&mut input).map_err(|error| error.to_string())?;
            println!("{length} bytes");
        }
        "write" => {
            for number in 0..200 {
                println!("{number}");
                eprintln!("{number}");
            }
            io::stdout().write_all(b"\xff\x00\n").map_err(|error| error.to_string())?;
        }
        other => println!("{other} on {:?}", gethostname().map_err(|errno| errno.to_string())?),
    }
    Ok(ExitCode::SUCCESS)
}
