//! Which manifests keep which others alive: an index its children, and a subject its referrers.

/// Manifests by their numbers, and which of them keeps which. Usually there are no circles, as whoever keeps or is kept
/// has the other's digest in it; but an index may be about something that it keeps itself.
#[derive(Debug, Default)]
pub(super) struct Keepers {
    /// Who keeps, and who is kept; in order.
    edges: Vec<(u32, u32)>,
}

impl Keepers {
    pub(super) fn new(mut edges: Vec<(u32, u32)>) -> Self {
        edges.sort_unstable();
        edges.dedup();
        Self { edges }
    }

    /// Makes all alive that is kept by what is alive.
    pub(super) fn spread(&self, alive: &mut [bool]) {
        if self.edges.is_empty() {
            return;
        }
        let mut reached: Vec<u32> =
            (0..).zip(&*alive).filter(|(_, alive)| **alive).map(|(node, _)| node).collect();
        while let Some(keeper) = reached.pop() {
            for (_, kept) in self.kept_by(keeper) {
                if !std::mem::replace(&mut alive[*kept as usize], true) {
                    reached.push(*kept);
                }
            }
        }
    }

    /// Those that are not alive, in groups: each group keeps itself in a circle, or is one alone, and is kept by
    /// earlier ones only. (Tarjan's strongly connected components, which come in the opposite order.)
    pub(super) fn groups(&self, alive: &[bool]) -> Vec<Vec<u32>> {
        let dead = (0..).zip(alive).filter(|(_, alive)| !**alive).map(|(node, _)| node);
        if self.edges.is_empty() {
            return dead.map(|node| vec![node]).collect();
        }
        let mut walk =
            Walk { keepers: self, alive, states: vec![State::default(); alive.len()], ..Walk::default() };
        dead.for_each(|node| walk.visit(node));
        walk.groups.reverse();
        walk.groups
    }

    fn kept_by(&self, keeper: u32) -> &[(u32, u32)] {
        let start = self.edges.partition_point(|(by, _)| *by < keeper);
        let count = self.edges[start..].partition_point(|(by, _)| *by == keeper);
        &self.edges[start..start + count]
    }
}

#[derive(Clone, Copy, Default)]
struct State {
    /// In which order it was reached, from 1; 0: not yet.
    number: u32,
    /// The earliest that is open and can be reached from it.
    low: u32,
    is_open: bool,
}

#[derive(Default)]
struct Walk<'k> {
    keepers: &'k Keepers,
    alive: &'k [bool],
    states: Vec<State>,
    last_number: u32,
    /// Reached, and not yet in a group.
    open: Vec<u32>,
    groups: Vec<Vec<u32>>,
}

impl Default for &Keepers {
    fn default() -> Self {
        const NONE: &Keepers = &Keepers { edges: Vec::new() };
        NONE
    }
}

impl Walk<'_> {
    /// Without recursion: chains of manifests can be as long as clients like.
    fn visit(&mut self, root: u32) {
        if self.states[root as usize].number != 0 {
            return;
        }
        let mut path = vec![(root, self.enter(root))];
        while let Some((node, left)) = path.last_mut() {
            let node = *node;
            match left.split_first() {
                Some((&(_, kept), rest)) => {
                    *left = rest;
                    let state = self.states[kept as usize];
                    if self.alive[kept as usize] {
                        // Kept by one that is dead, and by another one.
                    } else if state.number == 0 {
                        let entered = self.enter(kept);
                        path.push((kept, entered));
                    } else if state.is_open {
                        let low = &mut self.states[node as usize].low;
                        *low = (*low).min(state.number);
                    }
                }
                None => {
                    path.pop();
                    let State { number, low, .. } = self.states[node as usize];
                    if let Some((keeper, _)) = path.last() {
                        let above = &mut self.states[*keeper as usize].low;
                        *above = (*above).min(low);
                    }
                    if low == number {
                        let start = self.open.iter().rposition(|open| *open == node).unwrap_or(0);
                        let group = self.open.split_off(start);
                        group.iter().for_each(|member| self.states[*member as usize].is_open = false);
                        self.groups.push(group);
                    }
                }
            }
        }
    }
}

impl<'k> Walk<'k> {
    fn enter(&mut self, node: u32) -> &'k [(u32, u32)] {
        self.last_number += 1;
        self.states[node as usize] = State { number: self.last_number, low: self.last_number, is_open: true };
        self.open.push(node);
        self.keepers.kept_by(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(edges: &[(u32, u32)], alive: &[bool]) -> Vec<Vec<u32>> {
        let mut groups = Keepers::new(edges.to_vec()).groups(alive);
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups
    }

    #[test]
    fn what_the_living_keep_is_alive() {
        let keepers = Keepers::new(vec![(0, 1), (1, 2), (3, 4), (4, 3)]);
        let mut alive = [true, false, false, false, false, false];
        keepers.spread(&mut alive);
        assert_eq!(alive, [true, true, true, false, false, false]);
    }

    #[test]
    fn keepers_come_before_what_they_keep() {
        assert_eq!(groups(&[], &[false, true, false]), [[0], [2]]);
        assert_eq!(groups(&[(2, 1), (1, 0)], &[false; 3]), [[2], [1], [0]]);
        assert_eq!(groups(&[(0, 1), (1, 2), (2, 0), (2, 3)], &[false; 4]), [vec![0, 1, 2], vec![3]]);
        // Through the living nothing is kept by the dead.
        assert_eq!(groups(&[(0, 1), (1, 2)], &[false, true, false]).len(), 2);
    }

    #[test]
    fn a_long_chain_is_no_recursion() {
        let edges: Vec<(u32, u32)> = (0..200_000).map(|node| (node, node + 1)).collect();
        let groups = groups(&edges, &vec![false; 200_001]);
        assert_eq!(groups.len(), 200_001);
        assert_eq!(groups[0], [0]);
    }

    #[test]
    fn random_groups_are_in_order_and_complete() {
        let mut random = 0x1234_5678_u64;
        let mut below = |limit: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % limit) as u32
        };
        for _ in 0..500 {
            let nodes = 1 + below(12);
            let edges: Vec<_> = (0..below(20)).map(|_| (below(nodes.into()), below(nodes.into()))).collect();
            let alive: Vec<bool> = (0..nodes).map(|_| below(4) == 0).collect();
            let groups = groups(&edges, &alive);
            let at = |node: u32| groups.iter().position(|group| group.contains(&node));
            for node in 0..nodes {
                assert_eq!(at(node).is_none(), alive[node as usize]);
            }
            for (keeper, kept) in edges {
                if let (Some(keeper), Some(kept)) = (at(keeper), at(kept)) {
                    assert!(keeper <= kept);
                }
            }
        }
    }
}
