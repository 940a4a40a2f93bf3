//! `[zones]`: named sets of source addresses, and the names by which others refer to them.

use std::collections::HashMap;

use ipnet::IpNet;
use sha2::Sha256;
use toml::Spanned;

use crate::policy::document::Entry;
use crate::policy::listfile::{self, ListError};
use crate::policy::model::{Zone, ZoneId};
use crate::policy::names::{fault, nearest};
use crate::policy::report::{Report, Span};
use crate::policy::schema::{self, Names};
use crate::policy::units::{Prefix, quote};

/// Most zones, the built-in one included.
const MOST: usize = 256;
/// The built-in zone of every address.
const ANY: &str = "any";
/// In place of a list of zones: no zone at all.
pub(super) const NONE: &str = "none";

/// The zones of a policy.
pub(super) struct Zones {
    list: Vec<Zone>,
    ids: HashMap<String, ZoneId>,
}

impl Zones {
    pub(super) fn new(report: &mut Report<'_>, entries: Vec<Entry<schema::Zone>>, hash: &mut Sha256) -> Self {
        let mut zones = Self { list: Vec::new(), ids: HashMap::new() };
        if let Some(entry) = entries.get(MOST - 1) {
            report.error(
                &entry.name_span,
                format!("these are more than {} zones", MOST - 1),
                "put zones that are treated alike into one",
            );
        }
        for Entry { name, name_span, value } in entries {
            if let Some((message, help)) = fault(&name, &[ANY, NONE]) {
                report.error(&name_span, message, help);
            }
            zones.ids.insert(name.clone(), ZoneId(zones.list.len()));
            let mut zone =
                Zone { name, any: false, prefixes: Vec::new(), list: None, interfaces: Vec::new() };
            match value {
                None => {}
                Some(schema::Zone::Any) => zone.any = true,
                Some(schema::Zone::Prefixes(prefixes)) => {
                    zone.prefixes = prefixes.into_iter().map(|prefix| prefix.into_inner().0).collect();
                    not_empty(report, &name_span, &zone);
                }
                Some(schema::Zone::Table(table)) => fill(report, &name_span, &mut zone, table, hash),
            }
            zones.list.push(zone);
        }
        zones
    }

    pub(super) fn into_list(self) -> Vec<Zone> {
        self.list
    }

    /// The zone of an id.
    pub(super) fn zone(&self, id: ZoneId) -> &Zone {
        &self.list[id.0]
    }

    /// The zones of the file, in its order: not the built-in one.
    pub(super) fn given(&self) -> impl Iterator<Item = &Zone> {
        self.list.iter().filter(|zone| zone.name != ANY)
    }

    /// The zones that are named; what is not a zone is reported.
    pub(super) fn resolve(&mut self, report: &mut Report<'_>, names: &Spanned<Names>) -> Vec<ZoneId> {
        match names.get_ref() {
            Names::One(name) => self.find(report, name, &names.span()).into_iter().collect(),
            Names::List(list) => {
                let mut ids: Vec<ZoneId> = Vec::with_capacity(list.len());
                for name in list {
                    let Some(id) = self.find(report, name.get_ref(), &name.span()) else {
                        continue;
                    };
                    if ids.contains(&id) {
                        report.error(
                            &name.span(),
                            format!("the zone {} is named twice here", quote(name.get_ref())),
                            "write it once",
                        );
                    }
                    ids.push(id);
                }
                ids
            }
        }
    }

    fn find(&mut self, report: &mut Report<'_>, name: &str, span: &Span) -> Option<ZoneId> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        if name == ANY {
            let id = ZoneId(self.list.len());
            self.ids.insert(ANY.to_owned(), id);
            self.list.push(Zone {
                name: ANY.to_owned(),
                any: true,
                prefixes: Vec::new(),
                list: None,
                interfaces: Vec::new(),
            });
            return Some(id);
        }
        if name == NONE {
            report.error(
                span,
                "\"none\" is not a zone",
                "write `allow = \"none\"`, without a list, for a service that nobody may reach; leave out an empty `deny`",
            );
            return None;
        }
        let known = self.list.iter().map(|zone| zone.name.as_str()).chain([ANY]);
        let help = match nearest(name, known) {
            Some(near) => format!("write {} instead", quote(near)),
            None if name.contains(['.', ':']) => {
                "give the addresses a name in [zones] and write that name".to_owned()
            }
            None => format!(
                "write `{name} = [\"192.0.2.0/24\"]` with its addresses under [zones], or name another zone"
            ),
        };
        report.error(span, format!("unknown zone {}", quote(name)), help);
        None
    }
}

/// A zone in its long form.
fn fill(
    report: &mut Report<'_>,
    name_span: &Span,
    zone: &mut Zone,
    table: schema::ZoneTable,
    hash: &mut Sha256,
) {
    let mut readable = true;
    if let Some(prefixes) = table.prefixes {
        zone.prefixes = prefixes.into_inner().into_iter().map(|prefix| prefix.into_inner().0).collect();
    }
    if let Some(file) = table.file {
        zone.list = Some(file.get_ref().clone());
        match read_list(report, &file, hash) {
            Some(list) if zone.prefixes.is_empty() => zone.prefixes = list,
            Some(list) => zone.prefixes.extend(list),
            None => readable = false,
        }
    }
    if let Some(interfaces) = table.interfaces {
        if interfaces.get_ref().is_empty() {
            report.error(
                &interfaces.span(),
                "the zone is bound to no interface",
                "name the interfaces that its addresses may arrive on, or leave `interfaces` out",
            );
        }
        zone.interfaces =
            interfaces.into_inner().into_iter().map(|name| name.get_ref().to_string()).collect();
    }
    if readable {
        not_empty(report, name_span, zone);
    }
}

fn not_empty(report: &mut Report<'_>, name_span: &Span, zone: &Zone) {
    if zone.prefixes.is_empty() {
        report.error(
            name_span,
            format!("the zone {} has no addresses", quote(&zone.name)),
            "write its prefixes, \"any\", or leave the zone out",
        );
    }
}

fn read_list(report: &mut Report<'_>, file: &Spanned<String>, hash: &mut Sha256) -> Option<Vec<IpNet>> {
    let path = report.list(file.get_ref());
    match listfile::read(&path, hash) {
        Ok(list) => Some(list.into_iter().map(|prefix: Prefix| prefix.0).collect()),
        Err(ListError::Unreadable(why)) => {
            let message = format!("{}: {}", quote(&path.to_string_lossy()), why.message);
            report.error(&file.span(), message, why.help);
            None
        }
        Err(ListError::Lines(errors)) => {
            for error in errors {
                report.error_elsewhere(&file.span(), error);
            }
            None
        }
    }
}
