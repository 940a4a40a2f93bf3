//! The L7 proxy beside nginx, with Django behind both: nothing differs but what is on the list, and everything on the list does.

mod parity {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::io::Write as _;

    use anyhow::{Result, ensure};
    use tollgate_tests::parity::{
        Aspect, DIFFERENCES, Difference, Outcome, Shape, Side, Stage, Where, compare, shapes, unexplained,
    };
    use tollgate_tests::shared::Shared;

    static STAGE: Shared<Stage> = Shared::new();

    struct Row {
        shape: Shape,
        nginx: Outcome,
        here: Outcome,
        aspects: Vec<Aspect>,
    }

    impl Row {
        fn shows(&self, difference: &Difference) -> bool {
            self.aspects.iter().any(|aspect| difference.explains(self.shape.name, aspect))
        }

        fn line(&self) -> String {
            let names: Vec<_> =
                DIFFERENCES.iter().filter(|one| self.shows(one)).map(|one| one.name).collect();
            let new = if unexplained(self.shape.name, &self.aspects).is_empty() { "" } else { "  NOT LISTED" };
            let (nginx, here) = (self.nginx.statuses(), self.here.statuses());
            format!("{:<55} {nginx:<22} {here:<22} {}{new}", self.shape.name, names.join("; "))
        }
    }

    fn rows(stage: &Stage) -> Result<Vec<Row>> {
        let row = |shape: Shape| {
            let nginx = stage.ask(&shape, Side::Nginx)?;
            let here = stage.ask(&shape, Side::Here)?;
            let aspects = compare(&nginx, &here);
            Ok(Row { shape, nginx, here, aspects })
        };
        shapes().into_iter().map(row).collect()
    }

    #[test]
    fn nothing_differs_from_nginx_but_what_is_on_the_list() -> Result<()> {
        STAGE.with(Stage::start, |stage| {
            let rows = rows(stage)?;
            if std::env::var_os("TOLLGATE_TABLE").is_some() {
                let mut table = format!("{:<55} {:<22} {:<22} differences\n", "shape", "nginx", "here");
                rows.iter().for_each(|row| table.push_str(&format!("{}\n", row.line())));
                // Around libtest, which keeps what a passing test prints.
                std::io::stderr().lock().write_all(table.as_bytes())?;
            }
            let mut wrong = String::new();
            for row in &rows {
                for aspect in unexplained(row.shape.name, &row.aspects) {
                    writeln!(wrong, "not listed: {}: {aspect}", row.shape.name)?;
                }
            }
            for difference in DIFFERENCES {
                match difference.shapes {
                    Where::Anywhere if !rows.iter().any(|row| row.shows(difference)) => {
                        writeln!(wrong, "listed, and no more so: {}", difference.name)?;
                    }
                    Where::Only(names) => {
                        let gone =
                            rows.iter().filter(|row| names.contains(&row.shape.name) && !row.shows(difference));
                        for row in gone {
                            writeln!(wrong, "listed, and no more so: {}: {}", difference.name, row.shape.name)?;
                        }
                    }
                    Where::Anywhere => {}
                }
            }
            ensure!(wrong.is_empty(), "{wrong}");
            Ok(())
        })
    }

    #[test]
    fn there_are_at_least_130_shapes_with_unique_names() {
        let shapes = shapes();
        let names: BTreeSet<_> = shapes.iter().map(|shape| shape.name).collect();
        assert_eq!(names.len(), shapes.len(), "two shapes have one name");
        assert!(shapes.len() >= 130, "{} shapes", shapes.len());
        for difference in DIFFERENCES {
            if let Where::Only(shown) = difference.shapes {
                for name in shown {
                    assert!(names.contains(name), "{}: no shape is named {name:?}", difference.name);
                }
            }
        }
    }
}
