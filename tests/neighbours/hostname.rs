//! Prints the name of the machine that it runs on.

fn main() -> std::io::Result<()> {
    print!("{}", std::fs::read_to_string("/proc/sys/kernel/hostname")?);
    Ok(())
}
