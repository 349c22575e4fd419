"""A script for several GPUs, on CPUs:

    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 tests/cpu_ranks.py SCRIPT

fastai is made for NCCL: `DistributedDL` sends indices through the GPU, and `SyncBatchNorm` exists only there. Nothing
else is changed."""
import runpy, sys, warnings
import torch
import fastai.distributed as fd
warnings.filterwarnings('ignore')
torch.set_num_threads(1)

def _broadcast(self, t, rank):
    t = torch.LongTensor(t)
    torch.distributed.broadcast(t, rank)
    return t.tolist()

fd.DistributedDL._broadcast = _broadcast
torch.nn.SyncBatchNorm.convert_sync_batchnorm = lambda model: model

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
if torch.distributed.is_initialized(): torch.distributed.destroy_process_group()
