//! What messages say, as another crate reads them, and what is made of answers.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourState};
use netlink_packet_route::neighbour_table::{NeighbourTableAttribute, NeighbourTableParameter};
use netlink_packet_route::route::RouteAttribute;

use super::*;

fn answer(kind: i32, number: u32, error: i32) -> Vec<u8> {
    let mut bytes = 20_u32.to_ne_bytes().to_vec();
    bytes.extend((kind as u16).to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(number.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend((-error).to_ne_bytes());
    bytes
}

#[test]
fn answers_are_read_and_rubbish_is_not() {
    let of = |bytes: &[u8]| answers(bytes).collect::<Vec<_>>();
    let two = [answer(libc::NLMSG_ERROR, 7, 17), answer(libc::NLMSG_ERROR, 8, 0)].concat();
    assert_eq!(of(&two), [(7, 17), (8, 0)]);
    assert_eq!(of(&[answer(libc::NLMSG_NOOP, 7, 0), answer(libc::NLMSG_ERROR, 9, 1)].concat()), [(9, 1)]);
    for length in 0..20 {
        assert_eq!(of(&two[..length]), [], "{length}");
    }
    assert_eq!(of(&[0; 64]), []);
    assert_eq!(of(&[0xff; 64]), []);
}

#[test]
fn a_batch_asks_for_the_last_answer_of_each_part() {
    let mut messages = Messages::default();
    for index in 0..AT_ONCE as i32 + 2 {
        messages.raise(index);
    }
    let mut first = 5;
    let parts = messages.parts(&mut first);
    assert_eq!(first, 5 + AT_ONCE as u32 + 2);
    let asks: Vec<Vec<bool>> = parts
        .iter()
        .map(|(bytes, begin)| {
            let flags = bytes.chunks(bytes.len() / begin.len()).map(|message| message[6]);
            flags.map(|flags| i32::from(flags) & libc::NLM_F_ACK != 0).collect()
        })
        .collect();
    assert_eq!(asks.iter().map(Vec::len).collect::<Vec<_>>(), [AT_ONCE, 2]);
    assert!(asks.iter().all(|asks| asks.last() == Some(&true) && asks.iter().filter(|asks| **asks).count() == 1));
}

#[test]
fn attributes_are_padded_and_nested() {
    let mut messages = Messages::default();
    messages.nested(1, |message| message.attribute(2, b"abcde"));
    assert_eq!(messages.bytes, [16, 0, 1, 0, 9, 0, 2, 0, b'a', b'b', b'c', b'd', b'e', 0, 0, 0]);
}

/// What another crate reads in the messages.
fn read_back(fill: impl FnOnce(&mut Messages)) -> RouteNetlinkMessage {
    let mut messages = Messages::default();
    fill(&mut messages);
    let mut first = 1;
    let [(bytes, _)] = messages.parts(&mut first)[..] else { panic!("one message") };
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).expect("a message");
    assert_eq!((message.header.length as usize, message.header.sequence_number), (bytes.len(), 1));
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => inner,
        other => panic!("{other:?}"),
    }
}

fn subnet(text: &str) -> (IpAddr, Subnet) {
    Subnet::parse(text).expect(text)
}

#[test]
fn a_pair_has_two_ends() {
    let file = std::fs::File::open("/").expect("a file");
    let fd = file.as_raw_fd();
    let end = |name, index, last| VethEnd { name, index, mac: [2, 0, 0, 0, 0, last], network: file.as_fd() };
    let message = read_back(|messages| messages.pair(&end("port0", 7, 1), &end("eth0", 2, 2), 1400));
    let RouteNetlinkMessage::NewLink(link) = message else { panic!("{message:?}") };
    assert_eq!((link.header.index, link.header.flags, link.header.change_mask), (7, LinkFlags::Up, LinkFlags::Up));
    let has = |link: &LinkMessage, name: &str, last: u8| {
        let wanted = [
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, last]),
            LinkAttribute::Mtu(1400),
            LinkAttribute::NetNsFd(fd),
        ];
        wanted.iter().all(|attribute| link.attributes.contains(attribute))
    };
    assert!(has(&link, "port0", 1), "{link:?}");
    let info = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info),
        _ => None,
    });
    assert!(info.is_some_and(|info| info.contains(&LinkInfo::Kind(InfoKind::Veth))), "{info:?}");
    let peer = info.expect("info").iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) => Some(peer),
        _ => None,
    });
    let peer = peer.expect("a peer");
    assert_eq!((peer.header.index, peer.header.flags), (2, LinkFlags::empty()));
    assert!(has(peer, "eth0", 2), "{peer:?}");
}

#[test]
fn addresses_and_routes_are_those_that_were_asked_for() {
    for (text, flags, broadcast) in
        [("192.0.2.7/24", AddressHeaderFlags::empty(), true), ("fd00::7/64", AddressHeaderFlags::Nodad, false)]
    {
        let (address, net) = subnet(text);
        let message = read_back(|messages| messages.address(2, address, &net));
        let RouteNetlinkMessage::NewAddress(found) = message else { panic!("{message:?}") };
        assert_eq!((found.header.index, found.header.prefix_len, found.header.flags), (2, net.prefix(), flags));
        for attribute in [AddressAttribute::Local(address), AddressAttribute::Address(address)] {
            assert!(found.attributes.contains(&attribute), "{found:?}");
        }
        let all = AddressAttribute::Broadcast("192.0.2.255".parse().expect("an address"));
        assert_eq!(found.attributes.contains(&all), broadcast);

        let message = read_back(|messages| messages.route(Some(&net), address, 3));
        let RouteNetlinkMessage::NewRoute(route) = message else { panic!("{message:?}") };
        assert_eq!(route.header.destination_prefix_length, net.prefix());
        let gateway = RouteAttribute::Gateway(address.into());
        for attribute in [RouteAttribute::Destination(net.network().into()), gateway.clone(), RouteAttribute::Oif(3)] {
            assert!(route.attributes.contains(&attribute), "{route:?}");
        }
        let message = read_back(|messages| messages.route(None, address, 3));
        let RouteNetlinkMessage::NewRoute(route) = message else { panic!("{message:?}") };
        assert_eq!(
            (route.header.destination_prefix_length, route.attributes),
            (0, vec![gateway, RouteAttribute::Oif(3)])
        );

        let message = read_back(|messages| messages.neighbour(4, address, [2, 0, 0, 0, 0, 9]));
        let RouteNetlinkMessage::NewNeighbour(neighbour) = message else { panic!("{message:?}") };
        assert_eq!((neighbour.header.ifindex, neighbour.header.state), (4, NeighbourState::Reachable));
        assert!(neighbour.header.flags.contains(NeighbourFlags::ExtLearned), "it counts for no limit");
        let mac = NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]);
        assert_eq!(neighbour.attributes, [NeighbourAttribute::Destination(address.into()), mac]);
    }
}

#[test]
fn neighbours_are_remembered_for_an_hour() {
    for (is_v4, name) in [(true, "arp_cache"), (false, "ndisc_cache")] {
        let message = read_back(|messages| messages.remember_neighbours(4, is_v4));
        let RouteNetlinkMessage::SetNeighbourTable(table) = message else { panic!("{message:?}") };
        assert!(table.attributes.contains(&NeighbourTableAttribute::Name(name.to_owned())), "{table:?}");
        let parameters = [NeighbourTableParameter::Ifindex(4), NeighbourTableParameter::BaseReachableTime(3_600_000)];
        assert!(table.attributes.contains(&NeighbourTableAttribute::Parms(parameters.to_vec())), "{table:?}");
    }
}
