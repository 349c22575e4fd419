from inspect import isfunction

import pytest, torch
from fastai.basics import *
from fastai.callback.all import *
from dataset_files import write_cifar, write_mnist
from small_learners import Reg, Spy, TinyLeNet, groups, make_learner
from superconv_fastai.recipes import nets

torch.set_num_threads(1)

def pytest_pycollect_makeitem(collector, name, obj):
    "No test is made of a function that a module imports: fastai's star import brings fastcore's `test_eq` and others"
    if isfunction(obj) and isinstance(collector, pytest.Module) and obj.__module__!=collector.obj.__name__: return []

@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path_factory):
    "No progress bars and tables in the tests' output; what a learner writes goes to a folder of the tests"
    init,files = Learner.__init__,tmp_path_factory.getbasetemp()
    def silent(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.logger = noop
        self.remove_cb(ProgressCallback)
        if self.path==Path('.'): self.path = files
    monkeypatch.setattr(Learner, '__init__', silent)

@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    "MNIST, CIFAR-10 and CIFAR-100, a few images of each"
    res = tmp_path_factory.mktemp('data')
    write_mnist(res)
    for n_classes in (10, 100): write_cifar(res, n_classes)
    return res

@pytest.fixture
def tiny(monkeypatch):
    "LeNet is a smaller network"
    monkeypatch.setitem(nets, 'lenet', lambda n_in, n_out, **kwargs: TinyLeNet())
