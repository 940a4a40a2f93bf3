//! The L7 proxy beside nginx, with Django behind both: nothing differs but what is on the list, and everything on the list does. And
//! the operator's own checks, as they were before.

mod parity {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::fs;
    use std::io::Write as _;
    use std::time::{Duration, Instant};

    use anyhow::{Context, Result, ensure};
    use tollgate_tests::Host;
    use tollgate_tests::parity::{
        Aspect, Outcome, Shape, Side, Stage, compare, differences, shapes, table, unexplained,
    };
    use tollgate_tests::shared::Shared;
    use tollgate_tests::tollgate::workspace;

    static STAGE: Shared<Stage> = Shared::new();

    struct Row {
        shape: Shape,
        nginx: Outcome,
        here: Outcome,
        aspects: Vec<Aspect>,
        took: Duration,
    }

    impl Row {
        fn of(stage: &Stage, shape: Shape) -> Result<Self> {
            let begun = Instant::now();
            let (nginx, here) = (stage.ask(&shape, Side::Nginx)?, stage.ask(&shape, Side::Here)?);
            let aspects = compare(&nginx, &here);
            Ok(Self { shape, nginx, here, aspects, took: begun.elapsed() })
        }

        /// For the table.
        fn line(&self) -> String {
            let name = self.shape.name;
            let mut shown: Vec<_> = differences()
                // What shows with most shapes would bury the rest.
                .filter(|one| !one.shapes().is_empty())
                .filter(|one| self.aspects.iter().any(|aspect| one.explains(name, aspect)))
                .map(|one| one.name)
                .collect();
            if !unexplained(name, &self.aspects).is_empty() {
                shown.push("NOT LISTED");
            }
            let (nginx, here, shown) = (self.nginx.statuses(), self.here.statuses(), shown.join("; "));
            format!("{name:<66} {:>5} ms  {nginx:<22} {here:<22} {shown}\n", self.took.as_millis())
        }
    }

    #[test]
    fn nothing_differs_from_nginx_but_what_is_on_the_list() -> Result<()> {
        STAGE.with(Stage::start, |stage| {
            let rows: Vec<Row> =
                shapes().into_iter().map(|shape| Row::of(stage, shape)).collect::<Result<_>>()?;
            if std::env::var_os("TOLLGATE_TABLE").is_some() {
                let head =
                    format!("{:<66} {:>8}  {:<22} {:<22} differences\n", "shape", "both", "nginx", "here");
                let table: String = std::iter::once(head).chain(rows.iter().map(Row::line)).collect();
                // Around libtest, which keeps what a passing test prints.
                std::io::stderr().lock().write_all(table.as_bytes())?;
            }
            let mut wrong = String::new();
            for row in &rows {
                for aspect in unexplained(row.shape.name, &row.aspects) {
                    writeln!(wrong, "not listed: {}: {aspect}", row.shape.name)?;
                }
            }
            let found: BTreeMap<&str, Vec<Aspect>> =
                rows.iter().map(|row| (row.shape.name, row.aspects.clone())).collect();
            for gone in differences().flat_map(|one| one.gone(&found)) {
                writeln!(wrong, "listed, and no more so: {gone}")?;
            }
            ensure!(wrong.is_empty(), "{wrong}\n{}", stage.logs());
            Ok(())
        })
    }

    #[test]
    fn the_list_is_that_of_the_documents() -> Result<()> {
        let text = fs::read_to_string(workspace().join("docs/proxy.md"))?;
        let after =
            text.split_once("## Differences from nginx\n").context("docs/proxy.md has no such section")?.1;
        let rows: Vec<&str> = after.lines().take_while(|line| !line.starts_with("## ")).collect();
        let written: Vec<&str> = rows.into_iter().filter(|line| line.starts_with('|')).collect();
        let listed = table();
        let listed: Vec<&str> = listed.lines().collect();
        for (written, listed) in written.iter().zip(&listed) {
            ensure!(written == listed, "docs/proxy.md has\n{written}\nand the list\n{listed}");
        }
        ensure!(written.len() == listed.len(), "{} rows are written, {} listed", written.len(), listed.len());
        Ok(())
    }

    #[test]
    fn there_are_at_least_130_shapes_with_unique_names() {
        let shapes = shapes();
        let names: BTreeSet<_> = shapes.iter().map(|shape| shape.name).collect();
        assert_eq!(names.len(), shapes.len(), "two shapes have one name");
        assert!(shapes.len() >= 130, "{} shapes", shapes.len());
        for name in differences().flat_map(|one| one.shapes()) {
            assert!(names.contains(name), "no shape is named {name:?}");
        }
        let different: BTreeSet<_> = differences().map(|one| one.name).collect();
        assert_eq!(different.len(), differences().count(), "two differences have one name");
    }

    /// What whoever runs the server looks at after a change.
    #[test]
    fn the_checks_of_the_operator_answer_as_before() -> Result<()> {
        STAGE.with(Stage::start, |stage| {
            let said = |from: Host, argv: &[&str]| -> Result<String> {
                let output = stage.lab.ns(from).run(argv)?;
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            };
            for (from, url) in [
                (Host::Server, "http://127.0.0.1:8000"),
                (Host::Lan, "http://192.168.0.104:8000"),
                (Host::Lan, "https://192.168.0.104"),
                (Host::Lan, "http://192.168.0.104:8082"),
                (Host::Lan, "http://192.168.0.104:8083"),
                (Host::Server, "http://localhost:8006"),
            ] {
                let page = said(from, &["curl", "-sSfk", "--max-time", "30", url])?;
                ensure!(page == "plain\n", "{url} from {from}: {page:?}");
            }
            let from_outside = stage.lab.ns(Host::Outside).output(&[
                "curl",
                "-s",
                "--connect-timeout",
                "1",
                "http://192.168.0.104:8000",
            ])?;
            ensure!(!from_outside.status.success(), "the platform answers the outside without the proxy");

            let query = ["psql", "-h", "localhost", "-U", "postgres", "-X", "-t", "-A", "-c", "SELECT 1"];
            let one = said(Host::Server, &query)?;
            ensure!(one.trim() == "1", "psql: {one:?}");

            let sockets = said(Host::Server, &["ss", "-tlnpH"])?;
            for (address, program) in [
                ("192.168.0.104:80", "tollgate"),
                ("192.168.0.104:443", "tollgate"),
                ("127.0.0.1:8006", "tollgate"),
                ("0.0.0.0:8000", "gunicorn"),
                ("127.0.0.1:8081", "gunicorn"),
                ("0.0.0.0:8082", "python3"),
                ("0.0.0.0:8083", "gunicorn"),
                ("0.0.0.0:5432", "postgres"),
            ] {
                let line = sockets.lines().find(|line| line.split_whitespace().nth(3) == Some(address));
                ensure!(
                    line.is_some_and(|line| line.contains(program)),
                    "{address} is not {program}'s:\n{sockets}"
                );
            }
            Ok(())
        })
    }
}
