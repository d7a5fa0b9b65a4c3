use belljar::{isolated, prepared};

#[prepared(timeout = "60s")]
fn database() -> std::io::Result<()> {
    std::fs::create_dir("/var/lib/app")?;
    std::fs::write("/var/lib/app/data", "migrated")
}

#[isolated(from = database)]
fn deletes_everything() {
    std::fs::remove_dir_all("/var/lib/app").unwrap();
}

#[isolated(from = database)]
fn finds_everything() {
    assert_eq!(std::fs::read_to_string("/var/lib/app/data").unwrap(), "migrated");
}
