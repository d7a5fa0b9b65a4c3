//! `filter FILE PROGRAM [ARGUMENT...]` runs a program under seccomp filters, which it can't get rid of. FILE has one or more, as
//! the crate `seccompiler` reads them: JSON that says which system calls are refused, with which errno. For the lab.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::{env, process};

use seccompiler::{BpfProgram, apply_filter, compile_from_json};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let (Some(file), Some(program)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: filter FILE PROGRAM [ARGUMENT...]");
        process::exit(2);
    };
    let filters = compile_from_json(File::open(file)?, env::consts::ARCH.try_into()?)?;
    let in_order: BTreeMap<String, BpfProgram> = filters.into_iter().collect();
    if in_order.is_empty() {
        return Err("the file has no filter".into());
    }
    in_order.values().try_for_each(|filter| apply_filter(filter))?;
    Err(Command::new(program).args(arguments).exec().into())
}
