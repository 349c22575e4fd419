"Small files in the formats in which MNIST and CIFAR are published."
import gzip

import numpy as np

def write_mnist(folder, n=300, n_test=500):
    "Squares whose place is the class, in noise"
    (folder/'mnist').mkdir()
    rng = np.random.RandomState(0)
    for split,k in (('train',n),('t10k',n_test)):
        y = np.arange(k)%10
        x = rng.randint(0, 60, (k,28,28))
        for img,c in zip(x, y): img[2+4*(c//4):8+4*(c//4), 2+6*(c%4):8+6*(c%4)] += 150
        for what,shape,a in (('images-idx3',(k,28,28),x), ('labels-idx1',(k,),y)):
            head = bytes((0,0,8,len(shape))) + np.array(shape, '>u4').tobytes()
            with gzip.open(folder/'mnist'/f'{split}-{what}-ubyte.gz', 'wb') as f:
                f.write(head + a.astype(np.uint8).tobytes())

def write_cifar(folder, n_classes, n=60, n_test=500):
    "Noise, with one label an image (CIFAR-10) or two (CIFAR-100)"
    rng = np.random.RandomState(1)
    def record(k):
        labels = [(np.arange(k)%n_classes)[:,None]]*(1 if n_classes==10 else 2)
        return np.concatenate([*labels, rng.randint(0, 256, (k,3072))], 1).astype(np.uint8)
    d = folder/('cifar-10-batches-bin' if n_classes==10 else 'cifar-100-binary')
    d.mkdir()
    if n_classes==10: files = {f'data_batch_{i}':n for i in range(1,6)} | {'test_batch':n_test}
    else: files = dict(train=5*n, test=n_test)
    for name,k in files.items(): record(k).tofile(d/f'{name}.bin')
