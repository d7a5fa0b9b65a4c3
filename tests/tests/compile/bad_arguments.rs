//! Compiled by `compile`, which expects the errors in `bad_arguments.stderr`.
use belljar::isolated;

#[isolated(network)]
fn unknown_word() {}

#[isolated(tiemout = "5s")]
fn unknown_key() {}

#[isolated(net, timeout = "5x", net, hostname = "", mount = true)]
fn five_errors_at_once() {}

#[isolated(timeout)]
fn key_without_a_value() {}

#[isolated(timeout = 5)]
fn value_of_another_kind() {}

#[isolated(timeout = "0s")]
fn no_time_at_all() {}

#[isolated(hostname = "two words")]
fn no_host_name() {}

#[isolated(hostname = "a", hostname = "b")]
fn key_written_twice() {}

#[isolated(memory = "64")]
fn less_than_a_sandbox_takes() {}

#[isolated(memory = "much")]
fn no_size() {}

#[isolated(pids = 1, cpu = 0)]
fn limits_that_nothing_keeps() {}

#[isolated(pids = "32", cpu = "half")]
fn no_numbers() {}

#[isolated(net, tmpfs = "1MiB")]
fn a_size_without_a_root() {}

#[isolated(timeout("5s"))]
fn value_in_parentheses() {}

#[isolated(net mount)]
fn no_comma() {}

#[isolated(timeout = "5s" net)]
fn no_comma_after_a_value() {}

#[isolated(net,, mount)]
fn two_commas() {}

#[isolated("net")]
fn no_name() {}

#[isolated(crate = "belljar")]
fn no_path() {}

#[isolated(bind = "/src", env = ["A=1", "=2", 3])]
fn no_lists() {}

#[isolated(bind = ["a:b:c:d", ":/dst", "/src:dst", "/src:/dst:wr", "/src:/", "/src:/a/../b", "/src/..", "/:/host"])]
fn no_binds() {}

#[isolated(user = -1)]
fn no_user() {}

#[isolated(user = 4294967295, user = "root", user = "1:2:3", user = 1.5, user)]
fn no_users() {}

#[isolated(root = "image", uids = 0)]
fn no_root_and_nobody() {}

#[isolated(net, root = "/")]
fn a_root_without_a_root() {}

#[isolated(uids = 1000, user = 1000)]
fn a_user_who_is_not_there() {}

#[isolated(boottime = "soon", monotonic = "101y")]
fn no_offsets() {}

#[isolated(clear_env = true, time = 5, env = [], env = [])]
fn words_that_stand_alone() {}

// The functions are there all the same.
#[isolated(bind = ["/etc:/./", "/etc:/x", "/usr:/x"], env = ["A=1", "A=2"])]
fn contradictions() {}

#[isolated(unsupported = "ignore")]
fn no_policy() {}

#[isolated(uids = 70000u8, user = "+5", pids = 32u8, tmpfs = "16EiB")]
fn numbers_of_other_kinds() {}

#[isolated(moutn, mem = "1GiB", hots = "jar", frobnicate)]
fn near_and_far() {}

#[isolated(root = "overlayfs", unsupported = "skipped", user = "hsot")]
fn near_values() {}

#[isolated(root = "image.tar")]
fn an_image_without_the_feature() {}

#[isolated(root = "oci:images:latest")]
fn a_layout_without_the_feature() {}

#[isolated(root = "oci:")]
fn a_layout_without_a_path() {}

#[isolated(root = "debian", tmpfs = "1GiB")]
fn a_relative_path() {}

#[isolated("net, mount")]
fn in_quotation_marks() {}

#[isolated(timeout =, memory = )]
fn no_values() {}

#[isolated(timeout = "5s"x, cpu = 0.5f32, pids = 32usize, bind = ["/usr"z])]
fn suffixes() {}

macro_rules! made {
    ($name:ident $literal:literal $expression:expr) => {
        #[isolated(timeout = $literal, bind = [$expression])]
        fn $name() {}
    };
}

made!(by_a_macro "soon" 5);

fn main() {
    unknown_word();
    unknown_key();
    five_errors_at_once();
}
