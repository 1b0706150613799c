"""One rank of `test_ranks`: `python ranks.py STRATEGY FOLDER`, started as torchrun would; one device makes one rank."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2] / "packages" / "train" / "tests"))
from train_toys import Batch, Net, batches, cross_entropy, make_data

from imgzoo_train.files.packing import snapshot
from imgzoo_train.loop.fit import fit
from imgzoo_train.loop.state import State
from imgzoo_train.ranks import sharding
from imgzoo_train.ranks.world import World


def trained(world, strategy, data):
    torch.manual_seed(0)
    net = Net(drop=0.0, norm=False).double().to(world.device)
    make = lambda groups: torch.optim.AdamW(groups, lr=0.05)  # noqa: E731
    if strategy == "fsdp2":
        sharding.shard(net, world)
    groups = [{"params": list(net.parameters())}]
    optimizer = sharding.zero_optimizer(make, groups) if strategy == "zero1" else make(groups)
    model = sharding.replicate(net, world) if strategy in ("ddp", "zero1") else net
    state = State(model, optimizer, net, world, sharded=strategy == "fsdp2")
    fit(state, data, cross_entropy, None, 6)
    return {name: tensor.cpu() for name, tensor in snapshot(state.parts()["model"]).items()}


def main(strategy):
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl")
    world = World(rank, size, device, dist.new_group(backend="gloo"))
    images, targets = make_data(96)
    images, targets = images.double().to(device), targets.to(device)
    data = batches(images, targets, 16)
    mine = [Batch(*(column[rank::size] for column in batch)) for batch in data]
    found = trained(world, strategy, mine)
    truth = trained(World(device=device), "", data)
    for name, tensor in truth.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
