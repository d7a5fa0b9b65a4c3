//! Compiled by `compile`, as tests: one preparation has an error, and its test has none for that.
use belljar::{isolated, prepared};

#[prepared(rooot = "overlay")]
fn with_an_error() {}

#[isolated(from = with_an_error)]
fn has_none_of_its_own() {}

/// A variable, a constant, and a parameter may have the names that we have.
mod names {
    use belljar::{isolated, prepared};

    const TEST: &str = "text";

    #[prepared]
    fn database() {
        std::fs::write("/file", TEST).unwrap();
    }

    fn read(database: &str) -> String {
        database.to_owned()
    }

    #[isolated(from = database)]
    fn reads() {
        let database = read(TEST);
        assert_eq!(database, "text");
    }
}
