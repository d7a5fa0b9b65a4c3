//! Programs that make namespaces within a sandbox, and mount anew in them what there is: `ip`, `sysctl`, and `bwrap`. See `anew.rs`.

use belljar::isolated;
use belljar_tests::succeeds;

/// Networks by name, and settings of namespaces within.
fn networks_and_settings() {
    assert_eq!(succeeds("ip netns list"), "");
    succeeds("ip netns add one && ip netns add two");
    assert_eq!(succeeds("ip netns list | sort"), "one\ntwo\n");
    assert_eq!(succeeds("ip netns exec one ls /sys/class/net"), "lo\n");
    succeeds("ip -n one link add left type veth peer name right netns two");
    succeeds("ip -n one addr add 10.9.8.7/24 dev left && ip -n one link set left up");
    assert_eq!(succeeds("ip netns exec one sh -c 'ls /sys/class/net | sort'"), "left\nlo\n");
    succeeds("ip netns exec two sysctl -w net.ipv4.ip_forward=1");
    assert_eq!(succeeds("ip netns exec two sysctl -n net.ipv4.ip_forward"), "1\n");
    assert_eq!(succeeds("sysctl -n net.ipv4.ip_forward"), "0\n");
    succeeds("ip netns delete one");
}

/// Since Linux 5.19 the settings of an ipc namespace belong to its owner. Before, they are for real root.
fn settings_of_ipc() {
    succeeds("sysctl -w kernel.msgmax=8000 fs.mqueue.msg_max=7");
    assert_eq!(succeeds("unshare -i sysctl -n kernel.msgmax"), "8192\n");
    succeeds("unshare -i sysctl -w kernel.msgmax=9000 fs.mqueue.msg_max=8");
    assert_eq!(succeeds("sysctl -n kernel.msgmax fs.mqueue.msg_max"), "8000\n7\n");
    succeeds("unshare --user --map-root-user sysctl -w user.max_net_namespaces=5");
}

fn bubblewrap() {
    succeeds("bwrap --unshare-ipc --bind / / true");
    succeeds("bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev ls /proc/self/comm");
    succeeds("bwrap --unshare-user --unshare-ipc --unshare-net --dev-bind / / true");
}

#[isolated]
fn in_a_root_of_their_own() {
    networks_and_settings();
    settings_of_ipc();
    bubblewrap();
}

#[isolated(net)]
fn in_the_hosts_tree() {
    networks_and_settings();
    settings_of_ipc();
    bubblewrap();
}

#[isolated(root = "overlay")]
fn in_a_copy() {
    networks_and_settings();
    settings_of_ipc();
    bubblewrap();
}
