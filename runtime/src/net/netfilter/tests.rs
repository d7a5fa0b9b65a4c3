//! What messages say, as a reader finds it that knows nothing but how netlink nests, and what errors are told.

use std::fmt::Write as _;

use insta::assert_snapshot;

use super::*;

/// Whether all of this is attributes, each of which ends where the next one begins. Adds them to `text`, one a line.
fn list(bytes: &[u8], depth: usize, text: &mut String) -> bool {
    let mut lines = String::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some((head, _)) = rest.split_at_checked(4) else { return false };
        let (length, kind) = (u16::from_ne_bytes([head[0], head[1]]), u16::from_ne_bytes([head[2], head[3]]));
        let Some(value) = rest.get(4..length.into()) else { return false };
        let mut inner = String::new();
        let is_text = |value: &[u8]| value.len() > 1 && value[..value.len() - 1].iter().all(u8::is_ascii_graphic);
        if value.ends_with(b"\0") && is_text(value) {
            let _ = writeln!(lines, "{:depth$}{kind} {}", "", String::from_utf8_lossy(&value[..value.len() - 1]));
        } else if value.len() > 4 && list(value, depth + 1, &mut inner) {
            let _ = write!(lines, "{:depth$}{kind}\n{inner}", "");
        } else {
            let _ = writeln!(lines, "{:depth$}{kind} {value:?}", "");
        }
        let Some(next) = rest.get(usize::from(length).next_multiple_of(4)..) else { return false };
        rest = next;
    }
    text.push_str(&lines);
    true
}

#[test]
fn all_messages_are_whole() {
    let forwards =
        ["10.0.0.1", "fd00::1"].map(|to| PlannedForward { port: 8080, to: to.parse().expect(to), to_port: 80 });
    let gate = PlannedGate {
        nat: Some(Nat::Symmetric),
        outside: 1,
        index: 65537,
        forwards: forwards.into(),
        has_firewall: true,
    };
    let bytes = [messages(&gate).bytes, super::forwards(&gate, &gate.forwards).bytes].concat();
    let mut kinds = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(rest[..4].try_into().expect("four")) as usize;
        kinds.push(u16::from_ne_bytes([rest[4], rest[5]]) & 0xff);
        assert!(list(&rest[20..length], 0, &mut String::new()), "{:?}", &rest[..length]);
        rest = &rest[length..];
    }
    assert_eq!(kinds, [16, 0, 3, 6, 3, 3, 6, 6, 3, 6, 6, 6, 17, 16, 6, 6, 6, 6, 17]);
}

#[test]
fn a_rule_is_a_list_of_expressions() {
    let mut messages = Messages::default();
    let gate = PlannedGate { nat: Some(Nat::Symmetric), outside: 1, index: 7, forwards: vec![], has_firewall: false };
    messages.is_interface(META_OIF, gate.index);
    messages.expression(b"masq\0", |masq| masq.number(1, RANDOM_FULLY));
    let mut text = String::new();
    assert!(list(&messages.bytes, 0, &mut text));
    assert_snapshot!(text, @"
    1
     1 meta
     2
      1 [0, 0, 0, 1]
      2 [0, 0, 0, 5]
    1
     1 cmp
     2
      1 [0, 0, 0, 1]
      2 [0, 0, 0, 0]
      3
       1 [7, 0, 0, 0]
    1
     1 masq
     2
      1 [0, 0, 0, 16]
    ");
}

#[test]
fn a_missing_module_is_named() {
    let words = |what, errno| Error(trouble("gateway", what, errno)).to_string();
    assert_snapshot!([
        words(TABLE, Errno::EPROTONOSUPPORT),
        words(NAT_CHAIN, Errno::ENOENT),
        words(MASQUERADE, Errno::ENOENT),
        words(FORWARD, Errno::ENOENT),
        words(ESTABLISHED, Errno::ENOENT),
        words(TABLE, Errno::EPERM),
    ].join("\n"), @"
    belljar: the laboratory is not up: `gateway` could not have a table of nf_tables: EPROTONOSUPPORT (Protocol not supported). The kernel lacks the module nf_tables: modprobe nf_tables.
    belljar: the laboratory is not up: `gateway` could not have a chain that translates addresses: ENOENT (No such file or directory). The kernel lacks the module nft_chain_nat: modprobe nft_chain_nat.
    belljar: the laboratory is not up: `gateway` could not have a rule that masquerades: ENOENT (No such file or directory). The kernel lacks the module nft_masq: modprobe nft_masq.
    belljar: the laboratory is not up: `gateway` could not have a rule that forwards a port: ENOENT (No such file or directory). The kernel lacks the module nft_nat: modprobe nft_nat.
    belljar: the laboratory is not up: `gateway` could not have a rule that lets answers pass: ENOENT (No such file or directory). The kernel lacks the module nft_ct: modprobe nft_ct.
    belljar: the laboratory is not up: `gateway` could not have a table of nf_tables: EPERM (Operation not permitted). It takes root inside, and CAP_SYS_ADMIN and CAP_NET_ADMIN, which the test may have given up.
    ");
}
