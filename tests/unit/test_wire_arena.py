"""The allocator never hands out memory twice and never loses any; nothing outside of the arena can be reached."""

import itertools
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.wire.arena import ALIGNMENT, Arena, ArenaError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd is Linux only")
SIZE = 1 << 16


@pytest.fixture
def arena():
    arena = Arena.create(SIZE)
    yield arena
    arena.close()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, SIZE // 3)), max_size=80), st.randoms())
def test_blocks_never_overlap_and_always_coalesce_to_one(steps, random):
    arena = Arena.create(SIZE)
    try:
        held = {}
        for allocate, length in steps:
            if allocate or not held:
                offset = arena.alloc(length)
                if offset is None:
                    assert all(room < max(length, 1) + ALIGNMENT for _, room in arena.free_blocks)
                    continue
                assert offset % ALIGNMENT == 0
                assert offset + length <= arena.size
                for other, other_length in held.items():
                    assert offset >= other + max(other_length, 1) or other >= offset + max(length, 1)
                held[offset] = length
            else:
                offset = random.choice(sorted(held))
                del held[offset]
                arena.free(offset)
            blocks = arena.free_blocks
            assert blocks == sorted(blocks)
            assert all(start + room < after for (start, room), (after, _) in itertools.pairwise(blocks))
        order = sorted(held)
        random.shuffle(order)
        for offset in order:
            arena.free(offset)
        assert arena.free_blocks == [(0, arena.size)]
    finally:
        arena.close()


def test_peer_reads_what_the_owner_wrote(arena):
    peer = Arena.attach(os.dup(arena.fd), arena.size)
    offset = arena.alloc(5)
    arena.write(offset, b"hello")
    assert bytes(peer.view(offset, 5)) == b"hello"
    with pytest.raises(ArenaError, match="owner"):
        peer.alloc(1)
    peer.close()


def test_full_arena_says_none_until_something_is_freed(arena):
    offset = arena.alloc(SIZE)
    assert arena.alloc(1) is None
    arena.free(offset)
    assert arena.alloc(1) == 0


def test_free_block_of_just_the_length_is_used(arena):
    first = arena.alloc(ALIGNMENT)
    arena.alloc(SIZE - ALIGNMENT)
    arena.free(first)
    assert arena.alloc(ALIGNMENT) == first
    assert arena.free_blocks == []


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (SIZE, 1), (SIZE - 1, 2), (1 << 70, 1), (0, 1 << 70)])
def test_view_outside_is_an_error_and_not_a_crash(arena, offset, length):
    with pytest.raises(ArenaError, match="outside"):
        arena.view(offset, length)


def test_write_over_the_end_changes_nothing(arena):
    with pytest.raises(ArenaError):
        arena.write(SIZE - 2, b"abc")
    assert bytes(arena.view(SIZE - 2, 2)) == b"\0\0"


def test_block_is_not_freed_twice(arena):
    offset = arena.alloc(10)
    arena.free(offset)
    with pytest.raises(ArenaError, match="nothing is allocated"):
        arena.free(offset)


def test_shared_memory_cannot_be_resized_by_either_side(arena):
    for size in (0, SIZE * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, size)


def test_attach_refuses_a_size_that_is_not_the_files(arena):
    with pytest.raises(ArenaError, match=f"has {SIZE} bytes"):
        Arena.attach(arena.fd, SIZE * 2)


def test_attach_refuses_a_file_that_could_shrink():
    fd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, SIZE)
        with pytest.raises(ArenaError, match="not sealed"):
            Arena.attach(fd, SIZE)
    finally:
        os.close(fd)


def test_attach_refuses_an_ordinary_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    with path.open("r+b") as file, pytest.raises(ArenaError):
        Arena.attach(file.fileno(), SIZE)


def test_held_view_survives_close():
    arena = Arena.create(SIZE)
    view = arena.view(0, 4)
    arena.close()
    assert bytes(view) == bytes(4)


@pytest.mark.parametrize("size", [0, -1])
def test_arena_needs_a_size(size):
    with pytest.raises(ArenaError, match="positive"):
        Arena.create(size)
