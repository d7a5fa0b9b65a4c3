//! An embedded database, [redb](https://docs.rs/redb), keeps what it has committed, whichever of its calls fails, and if the power goes.

use std::error::Error;
use std::fs;

use belljar::{Ended, Fault, Sweep, isolated};
use redb::{Database, TableDefinition};

const BALANCES: TableDefinition<&str, u64> = TableDefinition::new("balances");

fn write(balances: [(&str, u64); 2]) -> Result<(), Box<dyn Error>> {
    let database = Database::create("/data/bank")?;
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(BALANCES)?;
        for (name, balance) in balances {
            table.insert(name, balance)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(name: &str) -> Result<u64, Box<dyn Error>> {
    let table = Database::open("/data/bank")?.begin_read()?.open_table(BALANCES)?;
    Ok(table.get(name)?.expect("a balance").value())
}

fn transfer() -> Result<(), Box<dyn Error>> {
    write([("ann", 60), ("bob", 40)])
}

fn no_money_is_lost(ended: Ended) {
    let balances = ["ann", "bob"].map(|name| read(name).expect("the database is whole"));
    assert!(balances == [60, 40] || balances == [100, 0] && ended != Ended::Returned, "{balances:?}");
}

#[isolated]
fn money_survives_all_failures() {
    fs::create_dir("/data").expect("mkdir");
    write([("ann", 100), ("bob", 0)]).expect("a database");
    let failures = [
        Fault::writing().errno(libc::ENOSPC),
        Fault::syncing().errno(libc::EIO),
        Fault::writing().kill(),
        Fault::syncing().kill(),
    ];
    for fault in failures {
        let swept = Sweep::new(fault.path("/data/*")).state("/data").power_cut().check(no_money_is_lost).run(transfer);
        println!("{swept:?}");
    }
}
