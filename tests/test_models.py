"Parameter counts against the published ones and against the authors' files, shapes, initialisation, arguments."
import subprocess, sys
import numpy as np, pytest, torch
from fastai.basics import *
from small_learners import TinyLeNet
from superconv_fastai.all import *
from superconv_fastai import models

def meta(f, *args, **kwargs):
    with torch.device('meta'): return f(*args, **kwargs)

def count(f, *args, **kwargs): return n_params(meta(f, *args, **kwargs))

# ---- published counts ----

published = [
    (resnet_cifar, (20,), .27, 'arXiv 1512.03385, table 6'), (resnet_cifar, (32,), .46, 'same'),
    (resnet_cifar, (44,), .66, 'same'), (resnet_cifar, (56,), .85, 'same'), (resnet_cifar, (110,), 1.7, 'same'),
    (wide_resnet, (40,1), .6, 'arXiv 1605.07146, table 5'), (wide_resnet, (40,2), 2.2, 'same'),
    (wide_resnet, (40,4), 8.9, 'same'), (wide_resnet, (40,8), 35.7, 'same'),
    (wide_resnet, (28,10), 36.5, 'same'), (wide_resnet, (28,12), 52.5, 'same'), (wide_resnet, (22,8), 17.2, 'same'),
    (wide_resnet, (22,10), 26.8, 'same'), (wide_resnet, (16,8), 11., 'same'), (wide_resnet, (16,10), 17.1, 'same'),
    (densenet40, (), 1., 'arXiv 1608.06993, table 2'), (airbench94, (), 1.97, 'KellerJordan/cifar10-airbench')]

@pytest.mark.parametrize('f,args,millions,source', published, ids=lambda o: getattr(o, '__name__', None))
def test_published_counts(f, args, millions, source):
    digits = len(str(millions).split('.')[1])
    assert round(count(f, *args)/1e6, digits)==millions

def test_exact_counts():
    assert count(resnet_cifar, 20)==269_722 # He et al.'s with BatchNorm's two parameters for each channel
    assert count(lenet)==431_080 # Caffe's example
    assert count(three_layer)==89_578
    assert count(imagenet_model, 'resnet50')==25_557_032 # torchvision's documentation

def test_inception_resnet_v2():
    pytest.importorskip('timm')
    assert count(imagenet_model, 'inception_resnet_v2')==55_843_464 # timm's model card says 55.8M

# ---- the authors' files, layer by layer ----

def conv_bn(*shapes): return sum(ni*nf*k*k + 2*nf for ni,nf,k in shapes)

def test_paper_a_resnets():
    "Resnet{20,56,110}Cifar.prototxt: the first block of a stage has the width of the stage before it"
    for depth,n in ((20,3), (56,9), (110,18)):
        convs = [(3,16,3)] + [(16,16,3)]*2*n + [(16,16,3)]*2 + [(32,32,3)]*2*(n-1) + [(32,32,3)]*2 + [(64,64,3)]*2*(n-1)
        assert len(convs)+1==depth and count(resnet_cifar, depth, shortcut='pool')==conv_bn(*convs)+650

def test_paper_b_resnet56():
    "gResnet56.prototxt: 8 blocks of 16 channels, one that leads to 32, 8, one that leads to 64, 8"
    convs = [(3,16,3)] + [(16,16,3)]*16 + [(16,32,3),(32,32,3),(16,32,2)] + [(32,32,3)]*16 + [(32,64,3),(64,64,3),
                                                                                              (32,64,2)] + [(64,64,
                                                                                                             3)]*16
    assert count(resnet_cifar, 56, shortcut='project')==conv_bn(*convs)+650

def test_paper_b_wide_resnet32():
    "wide32cifar.prototxt: 5 blocks in a stage, of 16, 64 and 256 channels"
    convs = [(3,16,3)] + [(16,16,3)]*10 + [(16,64,3),(64,64,3),(16,64,2)] + [(64,64,3)]*8 + [(64,256,3),(256,256,3),
                                                                                             (64,256,2)] + [(256,256,
                                                                                                             3)]*8
    assert sum(k==3 for *_,k in convs)+1==32 and count(wide_resnet32)==conv_bn(*convs)+2570

def test_paper_b_densenet40():
    "genDensenet40.prototxt: BatchNorm before each convolution, transitions of 160 and 304 channels"
    total,c = 3*16*9,16
    for stage in range(3):
        for _ in range(12): total,c = total + 2*c + c*12*9, c+12
        if stage<2: total += 2*c + c*c
    assert c==448 and count(densenet40)==total + 2*c + 4490

# ---- what they compute ----

def plain_resnet(model, x, shortcut, n):
    "The forward pass written out with functionals, from the weights in the order in which they were made"
    it = iter([m for m in model.modules() if isinstance(m, (nn.Conv2d,nn.BatchNorm2d,nn.Linear))])
    def conv_bn(x, stride=1):
        c,b = next(it),next(it)
        return F.batch_norm(F.conv2d(x, c.weight, stride=stride, padding=(c.kernel_size[0]-1)//2), b.running_mean,
                            b.running_var, b.weight, b.bias)
    x = conv_bn(x).relu()
    for stage in range(3):
        for block in range(n[stage]):
            stride,width = (2 if stage and not block else 1),x.shape[1]
            out = conv_bn(conv_bn(x, stride).relu())
            if stride==1: short = x
            elif shortcut=='pad': short = torch.cat((x[:,:,::2,::2], torch.zeros_like(x[:,:,::2,::2])), 1)
            elif shortcut=='pool': # Caffe's average over the pixels that exist
                p = F.pad(x, (0,1,0,1))
                short = F.avg_pool2d(p, 3, 2)*9/F.avg_pool2d(F.pad(torch.ones_like(x), (0,1,0,1)), 3, 2)/9
            else: short = conv_bn(x, 2)
            x = out+short if shortcut=='project' else (out+short).relu()
            if stride==2 and shortcut=='pool': x = torch.cat((x, torch.zeros_like(x)), 1)
    fc = next(it)
    return F.linear(x.mean((2,3)), fc.weight, fc.bias)

@pytest.mark.parametrize('shortcut,n', [('pad',(3,3,3)), ('conv',(3,3,3)), ('pool',(3,3,3)), ('project',(2,3,3))])
def test_resnets_written_out(shortcut, n):
    set_seed(0)
    model = resnet_cifar(20, 4, shortcut=shortcut)
    x = torch.randn(4,3,16,16)
    model(x)
    model(x) # running statistics that are not 0 and 1
    model.eval()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(.5, 1.5)
                m.bias.normal_()
        assert torch.allclose(model(x), plain_resnet(model, x, shortcut, n), atol=1e-4)

def test_wide_resnet_block():
    "As in the DAWNBench entry: the shortcut begins after the activation"
    set_seed(0)
    block = wide_resnet(16, 1)[2].eval() # the second block of the first stage
    bn,c1,b1,c2 = block.pre[0],block.body[0],block.body[1][0],block.body[2]
    x = torch.randn(2,16,8,8)
    def norm(b, x): return F.batch_norm(x, b.running_mean, b.running_var, b.weight, b.bias)
    a = norm(bn, x).relu()
    want = a + F.conv2d(norm(b1, F.conv2d(a, c1.weight, padding=1)).relu(), c2.weight, padding=1)
    assert torch.allclose(block(x), want, atol=1e-5)

@pytest.mark.parametrize('f,n_in,size', [
    (resnet8,1,8), (partial(resnet8, 8),3,14), (partial(resnet8, stride=2),1,28), (partial(resnet_cifar, 20),3,32),
    (partial(resnet_cifar, 20, shortcut='pool'),3,28), (partial(resnet_cifar, 8, shortcut='project'),1,28),
    (partial(wide_resnet, 10, 1),1,28), (wide_resnet32,1,16), (densenet40,1,16), (lenet,1,28),
    (partial(lenet, size=32),3,32), (three_layer,3,32), (partial(three_layer, size=16),1,16),
    (airbench94,3,32), (partial(airbench94, width=.25),1,31)])
def test_forward_and_backward(f, n_in, size):
    set_seed(0)
    model = f(n_in=n_in, n_out=7)
    out = model(torch.randn(3, n_in, size, size))
    assert out.shape==(3,7)
    out.square().sum().backward()
    for n,p in model.named_parameters(): assert not p.requires_grad or p.grad is not None and p.grad.isfinite().all(), n

@pytest.mark.parametrize('f', [resnet8, partial(resnet_cifar, 20), partial(wide_resnet, 10, 1), wide_resnet32,
                               densenet40])
def test_bn_mom_and_dropout(f):
    model = f(bn_mom=.05, dropout=.2)
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}=={.05}
    drops = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert drops and set(drops)=={.2} and not any(isinstance(m, nn.Dropout) for m in f().modules())
    assert n_params(model)==n_params(f())

def test_dropout_as_in_the_papers():
    # Resnet56Dropout.prototxt: each convolution in a block
    assert sum(isinstance(m, nn.Dropout) for m in resnet_cifar(56, dropout=.2, shortcut='pool').modules())==54
    # genDensenet40.prototxt: all convolutions but the first
    assert sum(isinstance(m, nn.Dropout) for m in densenet40(dropout=.2).modules())==38

def test_bn_mom_of_imagenet_models():
    model = meta(imagenet_model, 'resnet50', 10, bn_mom=.01)
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}=={.01} and model.fc.out_features==10

def test_initialisation():
    set_seed(0)
    for m in resnet_cifar(20, 64).modules():
        if isinstance(m, nn.Conv2d):
            assert math.isclose(m.weight.detach().std(), (2/(m.in_channels*9))**.5, rel_tol=.05)
        if isinstance(m, nn.Linear):
            assert math.isclose(m.weight.detach().std(), m.in_features**-.5, rel_tol=.05) and not m.bias.any()
    set_seed(1)
    a = resnet8()
    set_seed(1)
    b = resnet8()
    assert all(torch.equal(p, q) for p,q in zip(a.parameters(), b.parameters()))

# ---- airbench94 ----

def whitening(images, eps=5e-4):
    "The authors' filters, patch by patch in float64"
    p = np.stack([img[:,i:i+2,j:j+2].ravel() for img in images.double().numpy() for i in range(images.shape[2]-1)
                  for j in range(images.shape[3]-1)])
    values,vectors = np.linalg.eigh(p.T@p/len(p))
    return [(vectors[:,k]/np.sqrt(values[k]+eps)).reshape(-1,2,2) for k in reversed(range(len(values)))]

def test_whitening():
    set_seed(0)
    images = F.avg_pool2d(torch.randn(10,3,14,14), 3, 1)
    w = airbench94(images, width=.1)[0].weight
    for got,opposite,want in zip(w[:12], w[12:], whitening(images)):
        assert torch.equal(got, -opposite)
        want = torch.tensor(want).float()
        assert min((got-want).abs().max(), (got+want).abs().max()) < 1e-3*want.abs().max() # an eigenvector has no sign
    assert not w.requires_grad and airbench94()[0].weight.requires_grad

def test_airbench_starts_as_identities():
    m = airbench94(width=.5)
    for conv in [o for o in m.modules() if isinstance(o, nn.Conv2d)][1:]:
        n = min(conv.weight.shape[:2])
        assert torch.equal(conv.weight[:n], nn.init.dirac_(torch.empty_like(conv.weight[:n])))
    norms = [o for o in m.modules() if isinstance(o, nn.BatchNorm2d)]
    assert len(norms)==6
    assert all(o.momentum==.4 and o.eps==1e-12 and o.bias.requires_grad and not o.weight.requires_grad for o in norms)
    assert [o.num_features for o in norms]==[32,32,128,128,128,128]

# ---- arguments ----

@pytest.mark.parametrize('f,kwargs,match', [
    (resnet_cifar, dict(depth=54), 'depth=54'), (resnet_cifar, dict(depth=2), 'depth=2'),
    (resnet_cifar, dict(depth='56'), "depth='56'"), (resnet_cifar, dict(width=0), 'width=0'),
    (resnet_cifar, dict(n_in=0), 'n_in=0'),
    (resnet_cifar, dict(n_out=0), 'n_out=0'), (resnet_cifar, dict(bn_mom=1.5), 'bn_mom=1.5'),
    (resnet_cifar, dict(dropout=1), 'dropout=1'), (resnet_cifar, dict(shortcut='B'), "shortcut='B'"),
    (resnet_cifar, dict(stride=0), 'stride=0'),
    (resnet8, dict(width=1.5), 'width=1.5'), (wide_resnet, dict(depth=20), 'depth=20'), (wide_resnet, dict(k=0), 'k=0'),
    (wide_resnet, dict(dropout=-.1), 'dropout=-0.1'), (wide_resnet32, dict(bn_mom=None), 'bn_mom=None'),
    (densenet40, dict(dropout=1.), 'dropout=1.0'), (lenet, dict(size=15), 'size=15'),
    (three_layer, dict(size=20), 'size=20'), (three_layer, dict(dropout=2), 'dropout=2'),
    (airbench94, dict(width=0), 'width=0'), (airbench94, dict(bn_mom=-1), 'bn_mom=-1'),
    (partial(imagenet_model, 'resnet50'), dict(n_out=0), 'n_out=0'),
    (imagenet_model, dict(name='resnet18'), "name='resnet18'")])
def test_arguments(f, kwargs, match):
    with pytest.raises(ValueError, match=f'{match} is not allowed'): f(**kwargs)

def test_a_missing_library_says_what_to_install():
    code = """import sys
from superconv_fastai.models import imagenet_model
assert not {'torchvision','timm'} & set(sys.modules)
for name,lib in (('resnet50','torchvision'), ('inception_resnet_v2','timm')):
    sys.modules[lib] = None
    try: imagenet_model(name)
    except ImportError as e: print(e)"""
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True,
                         check=True).stdout.splitlines()
    assert out == ['resnet50 needs torchvision: pip install torchvision',
                   'inception_resnet_v2 needs timm: pip install timm']

# ---- ghost batches ----

def test_ghost_batches_are_accumulated_gradients():
    "One batch normalized in parts, against one batch for each part with the gradients added up"
    torch.manual_seed(0)
    one,x,y = TinyLeNet(),torch.rand(40,1,28,28),torch.arange(40)%10
    many = deepcopy(one)
    ghost_norm(one, 10)
    F.cross_entropy(one(x), y).backward()
    for i in range(4): (F.cross_entropy(many(x[i::4]), y[i::4])/4).backward()
    for a,b in zip(one.parameters(), many.parameters()): torch.testing.assert_close(a.grad, b.grad)
    assert isinstance(one.bn, GhostBatchNorm2d) and one.bn.num_batches_tracked==1
    parts = torch.stack([many.conv(x[i::4]).mean((0,2,3)) for i in range(4)])
    torch.testing.assert_close(one.bn.running_mean, .1*parts.mean(0))
    one.eval()
    plain = nn.BatchNorm2d(4).eval()
    plain.load_state_dict(one.bn.state_dict())
    torch.testing.assert_close(one.bn(x[:,:,:4].expand(-1,4,-1,-1)), plain(x[:,:,:4].expand(-1,4,-1,-1)))

@pytest.mark.parametrize('n', [1, 9, 10, 19, 25])
def test_ghost_batches_that_do_not_divide(n):
    bn = nn.BatchNorm2d(4)
    x = torch.rand(n,4,3,3)
    torch.testing.assert_close(ghost_norm(nn.Sequential(deepcopy(bn)), 10)(x), bn(x))

@pytest.mark.parametrize('bad', [0, -1, 2.5, None, 'four'])
def test_ghost_bs_is_checked_before_anything_changes(bad):
    model = resnet8()
    with pytest.raises(ValueError, match='ghost_bs='): ghost_norm(model, bad)
    assert not any(isinstance(m, GhostBatchNorm2d) for m in model.modules())
