//! The table of ports: which service each belongs to.
//!
//! Called by [`super::compile`].

use proxy_common::abi::decision::{PORTS_LEN, PORTS_UDP};

use crate::policy::model::{Service, Transport};

/// Class of each TCP port, UDP port and protocol number: 0 where there is no service, else 1 + the service's index.
pub(super) fn ports(services: &[Service]) -> Vec<u16> {
    let mut ports = vec![0; PORTS_LEN as usize];
    for (class, service) in (1u16..).zip(services) {
        for range in &service.ports {
            let base = match range.transport {
                Transport::Tcp => 0,
                Transport::Udp => PORTS_UDP as usize,
            };
            let (first, last) = (base + usize::from(range.first), base + usize::from(range.last));
            if let Some(slots) = ports.get_mut(first..=last) {
                slots.fill(class);
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::{PortRange, Refusal};

    #[test]
    fn each_port_has_the_class_of_its_service() {
        let service = |ranges: &[(Transport, u16, u16)]| Service {
            name: String::new(),
            ports: ranges
                .iter()
                .map(|(transport, first, last)| PortRange {
                    transport: *transport,
                    first: *first,
                    last: *last,
                })
                .collect(),
            allow: Vec::new(),
            deny: Vec::new(),
            limit: None,
            refuse: Refusal::Drop,
            audit: false,
        };
        let services = [
            service(&[(Transport::Tcp, 80, 81), (Transport::Udp, 65535, 65535)]),
            service(&[(Transport::Udp, 80, 80)]),
        ];
        let table = ports(&services);
        let udp = PORTS_UDP as usize;
        assert_eq!((table[79], table[80], table[81], table[82]), (0, 1, 1, 0));
        assert_eq!((table[udp + 80], table[udp + 65535], table[65535]), (2, 1, 0));
        assert_eq!(table.iter().filter(|class| **class != 0).count(), 4);
        assert_eq!(table.len(), PORTS_LEN as usize);
    }
}
