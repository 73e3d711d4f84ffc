//! What it takes to compile a function, weighed before it is compiled.
//!
//! The compiler's memory and time grow with a function's length, but mildly: the worst straight code of 512 KiB, all
//! of it calls, takes 600 MiB and 3 s. They grow without measure with its branches times what each of them may carry,
//! its locals and parameters, and with the square of its branches. So these are what is bounded, for one function and
//! for all together.

use wasmparser::{BlockType, CompositeInnerType, FunctionBody, Operator, RecGroup};

/// Parameters, or results, of one function: five times as many as those of the largest language runtimes have.
const MOST_PARAMETERS: usize = 100;

/// The same as a count of locals: what a branch may carry besides these.
const PARAMETERS: u64 = 100;

/// What one instruction weighs that calls the sandbox's runtime to move memory: so many branches are made of it.
const BULK: u64 = 4;

/// The most effort for one function: its branches, a loop counted once for each loop it is in, times its locals and
/// [`PARAMETERS`].
///
/// The dearest function of JavaScript's runtime takes 1.4 million, of Python's 1.6 (a jump table), of a policy in Rust
/// 0.2. At this bound the worst that is known, a chain of loops, takes 350 MiB and 5 s; without it, a chain within
/// 256 KiB and 1,000 locals took 1.7 GiB and 50 s, and a nest of 1,000 loops in some kilobytes 1.3 GiB and 15 s.
const MOST_FOR_ONE: u64 = 2_000_000;

/// The most effort for all functions of a file. JavaScript takes 56 million, Python 43, a policy in Rust 2.
const MOST_FOR_ALL: u64 = 160_000_000;

/// The effort of the functions seen so far.
#[derive(Debug, Default)]
pub(super) struct Effort {
    all: u64,
}

/// Why a function, or the file that holds it, would take too much to compile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TooDear {
    /// A function has too many branches for its locals.
    #[error(
        "holds a function with {branches} branches and {locals} local variables, which would take too much memory to \
         compile: split it, or build with less inlining"
    )]
    Function {
        /// Its branches; one for each entry of a jump table.
        branches: u64,
        /// Its local variables, without parameters.
        locals: u32,
    },
    /// All functions together have too many.
    #[error("its functions have so many branches that compiling them all would take minutes")]
    All,
    /// A function's type has too many parameters or results.
    #[error("holds a function with {0} parameters or results, and the most that are compiled are {MOST_PARAMETERS}")]
    Parameters(usize),
    /// A block takes values, or gives several.
    #[error(
        "holds a block that takes values or gives several, for which the compiler's memory has no bound: no compiler \
         makes these of a policy unasked"
    )]
    Block,
}

impl Effort {
    /// Refuses types whose functions would carry too much.
    ///
    /// # Errors
    /// When one has too many parameters or results.
    pub(super) fn check_types(group: &RecGroup) -> Result<(), TooDear> {
        for kind in group.types() {
            if let CompositeInnerType::Func(function) = &kind.composite_type.inner {
                let most = function.params().len().max(function.results().len());
                if most > MOST_PARAMETERS {
                    return Err(TooDear::Parameters(most));
                }
            }
        }
        Ok(())
    }

    /// Weighs one function more, which has so many `locals`. The inner error is the verdict on it.
    ///
    /// # Errors
    /// When it is no valid function.
    pub(super) fn add(&mut self, body: &FunctionBody<'_>, locals: u32) -> wasmparser::Result<Result<(), TooDear>> {
        let mut branches = 0_u64;
        // The blocks that are open, whether each is a loop, and how many are.
        let (mut open, mut loops) = (Vec::new(), 0_u64);
        for operator in body.get_operators_reader()? {
            let weight = match operator? {
                // Some ten bytes of these, nested or in a row, were seen to take megabytes.
                Operator::Block { blockty: BlockType::FuncType(_) }
                | Operator::Loop { blockty: BlockType::FuncType(_) }
                | Operator::If { blockty: BlockType::FuncType(_) } => return Ok(Err(TooDear::Block)),
                Operator::BrTable { targets } => u64::from(targets.len()).saturating_add(1),
                // What an outer loop carries, every loop within it carries too.
                Operator::Loop { .. } => {
                    open.push(true);
                    loops = loops.saturating_add(1);
                    loops
                }
                Operator::Block { .. } | Operator::If { .. } => {
                    open.push(false);
                    1
                }
                Operator::End => {
                    loops = loops.saturating_sub(u64::from(open.pop().unwrap_or(false)));
                    0
                }
                Operator::Else
                | Operator::Br { .. }
                | Operator::BrIf { .. }
                | Operator::CallIndirect { .. }
                | Operator::ReturnCallIndirect { .. }
                | Operator::TableGet { .. }
                | Operator::TableSet { .. } => 1,
                Operator::MemoryGrow { .. }
                | Operator::MemoryInit { .. }
                | Operator::MemoryCopy { .. }
                | Operator::MemoryFill { .. }
                | Operator::TableGrow { .. }
                | Operator::TableInit { .. }
                | Operator::TableCopy { .. }
                | Operator::TableFill { .. } => BULK,
                _ => 0,
            };
            branches = branches.saturating_add(weight);
        }
        let effort = branches.saturating_mul(u64::from(locals).saturating_add(PARAMETERS));
        self.all = self.all.saturating_add(effort);
        Ok(if effort > MOST_FOR_ONE {
            Err(TooDear::Function { branches, locals })
        } else if self.all > MOST_FOR_ALL {
            Err(TooDear::All)
        } else {
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::{Parser, Payload};

    use super::*;

    /// Weighs the functions of a module in text, each with so many `locals`.
    fn weigh(module: &str, locals: u32) -> Result<(), TooDear> {
        let file = wat::parse_str(format!("(module {module})")).expect("a module");
        let mut effort = Effort::default();
        for payload in Parser::new(0).parse_all(&file) {
            match payload.expect("a module") {
                Payload::TypeSection(types) => {
                    types.into_iter().try_for_each(|group| Effort::check_types(&group.expect("a type")))?;
                }
                Payload::CodeSectionEntry(body) => effort.add(&body, locals).expect("a function")?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A function of so many loops in a row, two branches each.
    fn loops(count: usize) -> String {
        format!("(func (param i32) {})", "(loop (br_if 0 (local.get 0)))".repeat(count))
    }

    #[test]
    fn a_branch_weighs_as_much_as_it_may_carry() {
        assert_eq!(weigh(&loops(10_000), 0), Ok(()));
        assert_eq!(weigh(&loops(10_001), 0), Err(TooDear::Function { branches: 20_002, locals: 0 }));
        assert_eq!(weigh(&loops(1_000), 900), Ok(()));
        assert_eq!(weigh(&loops(1_001), 900), Err(TooDear::Function { branches: 2_002, locals: 900 }));
    }

    #[test]
    fn a_jump_table_is_as_many_branches_as_it_has_entries() {
        let table = format!("(func (block (br_table {} (i32.const 0))))", "0 ".repeat(20_000));
        assert!(matches!(weigh(&table, 0), Err(TooDear::Function { branches: 20_001, .. })));
    }

    #[test]
    fn moving_memory_is_many_branches_and_straight_code_is_none() {
        let grow = |count: usize| format!("(memory 1) (func {})", "(drop (memory.grow (i32.const 0)))".repeat(count));
        assert_eq!(weigh(&grow(5_000), 0), Ok(()));
        assert!(matches!(weigh(&grow(5_001), 0), Err(TooDear::Function { .. })));
        let straight = format!("(memory 1) (func {})", "(i32.store (i32.const 0) (i32.const 0))".repeat(50_000));
        assert_eq!(weigh(&straight, 1000), Ok(()));
    }

    #[test]
    fn a_loop_is_one_branch_more_for_each_that_it_is_in() {
        let nest = |depth: usize| format!("(func {} {})", "(loop ".repeat(depth), ")".repeat(depth));
        assert_eq!(weigh(&nest(199), 0), Ok(()));
        assert_eq!(weigh(&nest(200), 0), Err(TooDear::Function { branches: 20_100, locals: 0 }));
    }

    #[test]
    fn all_functions_together_are_bounded() {
        let functions = |count: usize| loops(10_000).repeat(count);
        assert_eq!(weigh(&functions(80), 0), Ok(()));
        assert_eq!(weigh(&functions(81), 0), Err(TooDear::All));
    }

    #[test]
    fn values_may_not_travel_through_blocks() {
        for block in
            ["block (param i32) (drop)", "loop (param i32) (drop)", "if (param i32) (i32.const 1) (then (drop))"]
        {
            let function = format!("(func (param i32) (local.get 0) ({block}))");
            assert_eq!(weigh(&function, 0), Err(TooDear::Block), "{block}");
        }
        assert_eq!(weigh("(func (drop (block (result i32) (i32.const 0))))", 0), Ok(()));
        let many = |count: usize| format!("(func (param {}))", "i32 ".repeat(count));
        assert_eq!(weigh(&many(100), 0), Ok(()));
        assert_eq!(weigh(&many(101), 0), Err(TooDear::Parameters(101)));
    }
}
