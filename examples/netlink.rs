//! The crate [`rtnetlink`] adds interfaces, addresses and routes.
//!
//! As a plain `#[test]`, this needs root, and then changes the routes of the machine, which may well be the end of the
//! connection that one works over.

use std::net::{IpAddr, Ipv4Addr};

use belljar::isolated;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

async fn link(handle: &Handle, name: &str) -> LinkMessage {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links.try_next().await.expect("an answer").expect("a link")
}

async fn routes(handle: &Handle) -> Vec<RouteMessage> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    handle.route().get(all).execute().try_collect().await.expect("an answer")
}

#[isolated(net)]
#[tokio::test]
async fn a_route_leads_through_a_new_interface() {
    let (connection, handle, _) = rtnetlink::new_connection().expect("a socket");
    tokio::spawn(connection);
    let is_default = |route: &RouteMessage| route.header.destination_prefix_length == 0;
    assert!(!routes(&handle).await.iter().any(is_default));

    handle.link().add(LinkVeth::new("jar0", "jar1").build()).execute().await.expect("a pair of interfaces");
    let index = link(&handle, "jar0").await.header.index;
    for name in ["jar0", "jar1"] {
        let index = link(&handle, name).await.header.index;
        handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.expect("up");
    }
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    handle.address().add(index, address, 24).execute().await.expect("an address");
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).build();
    handle.route().add(route).execute().await.expect("a route");

    let routes = routes(&handle).await;
    let default = routes.iter().find(|route| is_default(route)).expect("a default route");
    assert!(default.attributes.contains(&RouteAttribute::Gateway(RouteAddress::Inet(GATEWAY))));
}
