"""The buffer: what is drawn is what is overwritten, restarts are binomial, and a resumed chain is the chain."""

import math

import pytest
import torch

from ssl_ebm.generative.samplers.langevin import SGLD
from ssl_ebm.generative.samplers.replay import ReplayBuffer

SHAPE = (1, 3, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def buffer(size=50, **options):
    return ReplayBuffer(size, SHAPE, generator=generator(), **options)


def test_it_starts_as_uniform_noise():
    full = buffer(4000)
    assert full.images.dtype == torch.float32 and len(full) == 4000 and not full.age.any()
    assert abs(float(full.images.var()) * 12 - 1) < 5 * math.sqrt(0.8 / full.images.numel())


def test_the_slots_that_were_drawn_are_the_slots_that_are_overwritten():
    replay = buffer(restart=0.0)
    before = replay.images.clone()
    draw = replay.draw(20, generator=generator(1))
    assert len(set(draw.slots.tolist())) == 20 and torch.equal(draw.images, before[draw.slots])
    replay.store(draw, draw.images + torch.arange(20)[:, None, None, None])
    others = torch.ones(50, dtype=torch.bool)
    others[draw.slots] = False
    assert torch.equal(replay.images[others], before[others]) and not replay.age[others].any()
    for place, slot in enumerate(draw.slots.tolist()):
        assert torch.equal(replay.images[slot], before[slot] + place) and replay.age[slot] == 1


def test_every_slot_is_drawn_equally_often():
    replay, random = buffer(20), generator(1)
    counts = torch.zeros(20)
    for _ in range(4000):
        counts[replay.draw(5, generator=random).slots] += 1
    assert float((counts - 1000).square().sum() / (1000 * 0.75)) * 19 / 20 < 19 + 5 * math.sqrt(2 * 19)


def test_the_share_that_restarts_is_binomial():
    replay, random, restarted = buffer(100, restart=0.05), generator(1), 0
    replay.age += 7
    for _ in range(400):
        draw = replay.draw(50, generator=random)
        new = draw.age == 0
        restarted += int(new.sum())
        assert torch.equal(draw.images[~new], replay.images[draw.slots[~new]]) and (draw.age[~new] == 7).all()
        assert not (draw.images[new] == replay.images[draw.slots[new]]).any()
    n = 400 * 50
    assert abs(restarted - 0.05 * n) < 5 * math.sqrt(n * 0.05 * 0.95)


def test_draws_are_augmented_and_restarts_are_not():
    replay = buffer(50, restart=0.5, augment=lambda images, generator: images + 10)
    draw = replay.draw(50, generator=generator(1))
    replay.age += 1
    assert 10 < int((draw.images.amin((1, 2, 3)) >= 10).sum()) < 40
    assert torch.equal(draw.images.amin((1, 2, 3)) < 10, draw.images.amax((1, 2, 3)) <= 1)


def test_lost_chains_start_again():
    replay = buffer(restart=0.0)
    replay.age += 4
    draw = replay.draw(6, generator=generator(1))
    ended = draw.images.clone()
    ended[2] = float("nan")
    lost = ~ended.flatten(1).isfinite().all(1)
    replay.store(draw, ended, drop=lost, generator=generator(2))
    assert replay.images.isfinite().all() and 0 <= float(replay.images.min()) and float(replay.images.max()) <= 1
    assert replay.age[draw.slots].tolist() == [5, 5, 0, 5, 5, 5]


def run(replay, random, updates):
    sampler = SGLD(step_size=0.1, noise=0.1, steps=2)
    for _ in range(updates):
        draw = replay.draw(10, generator=random)
        chains = sampler(lambda x: x.square().flatten(1).sum(1), draw.images, generator=random, age=draw.age)
        replay.store(draw, chains.x)


def test_a_resumed_buffer_is_the_buffer_that_was_never_stopped():
    whole, random = buffer(restart=0.2), generator(5)
    run(whole, random, 4)
    state, random_state = {k: v.clone() for k, v in whole.state_dict().items()}, random.get_state()
    run(whole, random, 4)
    resumed, again = buffer(restart=0.2), torch.Generator()
    resumed.load_state_dict(state)
    again.set_state(random_state)
    run(resumed, again, 4)
    assert torch.equal(whole.images, resumed.images) and torch.equal(whole.age, resumed.age)
    assert not torch.equal(state["images"], whole.images) and whole.age.max() > 1


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="size >= 1, got 0"):
        buffer(0)
    with pytest.raises(ValueError, match="restart is a probability.*got 1.5"):
        buffer(restart=1.5)
    with pytest.raises(ValueError, match="need 1 to 50 of the buffer's slots, got 51"):
        buffer().draw(51)
    good = buffer().state_dict()
    for state, message in [
        ({}, "replay buffer is empty, this one has 50 slots"),
        ({**good, "images": torch.empty(0, *SHAPE)}, "replay buffer is empty"),
        (buffer(40).state_dict(), "holds 40×1×3×3 images and 40 ages, this one 50×1×3×3: resume with the same"),
        ({**good, "images": good["images"] * float("nan")}, "not finite: go back"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            buffer().load_state_dict(state)
        assert "\n" not in str(error.value)
