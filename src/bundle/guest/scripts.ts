import type { Architecture } from '../architecture.ts'

// What runs inside a guest besides stock programs: one inittab and two scripts.
// Every command here is a fork and an exec, which cost many VM exits in a deep level: the fewer the better.

/**
 * The kernel's log, which goes out through the serial port, says this once the ssh server listens. Trying to connect
 * until it works would do as well, if QEMU's user network did not spin on connections that are given up.
 */
export const guestUp = 'nestvm: up'

/** Where a guest hypervisor has the layer mounted. */
export const layerMount = '/hypervisor'

/** A program of the layer, with the libraries it has there. */
export function layerArgv(
  { loader, triplet }: Pick<Architecture, 'loader' | 'triplet'>,
  program: string,
  layer = layerMount,
): string[] {
  return [`${layer}${loader}`, '--library-path', `${layer}/usr/lib/${triplet}`, `${layer}/usr/bin/${program}`]
}

/**
 * Between guests, and out through passt: a packet, and its acknowledgement, costs VM exits at each level whatever its
 * size. QEMU's own network at level 1 has Ethernet's.
 */
export const largeMtu = 65_520

/** How a level 1 guest sees the outside, from the range that RFC 2544 sets aside: no host's network is there. */
export const outsideNetwork = { guest: '198.18.0.2', gateway: '198.18.0.1', dns: '198.18.0.53' }

/** Starts the guest's ssh server. */
export const sshServer = 'dropbear -s -W 1048576 -r /etc/nestvm/host-key -P /run/nestvm/dropbear.pid'

/** There from when a container can start. */
const containerReady = '/run/nestvm/container/ready'

/** In a guest hypervisor there from when it can start guests. */
export const hypervisorReady = '/run/nestvm/hypervisor'

/** Where somebody may type; none in a machine that offers no console. */
type Terminal = 'hvc0' | undefined

/**
 * busybox init is process 1: it reaps orphans and restarts what ends. The console's shell comes only when somebody
 * presses Enter there.
 */
const inittab = (terminal: Terminal) => `::sysinit:/etc/nestvm/start
${terminal === undefined ? '' : `${terminal}::askfirst:-/bin/sh\n`}::ctrlaltdel:/bin/poweroff -f
`

/**
 * /etc/nestvm/config comes with the machine's own part of the initramfs: HOSTNAME, ADDRESS, NESTED (1 for a guest
 * hypervisor), IMAGE and SCRATCH (the disks of a container's image and of what it writes), OUTSIDE (the address of the
 * network card that leads out, at level 1, with OUTSIDE_ADDRESS, OUTSIDE_GATEWAY and OUTSIDE_MTU), MTU. In a guest's network every other address is one hop away, since each hypervisor answers ARP for what
 * lies behind it, so one ifconfig makes it whole.
 *
 * Three stages: up to the ssh server, all that a command may look for; what the next level's engine needs; the rest.
 * /run/nestvm/marks tells when user space began and when the first and the last ended, in seconds since the kernel's
 * start.
 */
const start = ({ modules: { base } }: Contents) => `#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
mount -t proc proc /proc
read kernel rest < /proc/uptime
mount -t devtmpfs devtmpfs /dev
cp -a /etc/nestvm/dev/. /dev/
mount -a
. /etc/nestvm/config
echo "$HOSTNAME" > /proc/sys/kernel/hostname
${loadModules(base.network)}for nic in /sys/class/net/eth*; do
  read -r mac < $nic/address
  if [ "$mac" = "$OUTSIDE" ]; then outside=\${nic##*/}; else inside=\${nic##*/}; fi
done
ifconfig lo 127.0.0.1 up
ifconfig $inside "$ADDRESS" netmask 255.0.0.0 mtu "$MTU" up
if [ "$outside" ]; then
  ifconfig $outside "$OUTSIDE_ADDRESS" netmask 255.255.255.0 mtu "$OUTSIDE_MTU" up
  route add default gw "$OUTSIDE_GATEWAY"
elif [ "$OUTSIDE" = via ]; then route add default gw 10.0.0.1
fi
${sshServer}
echo '<0>${guestUp}' > /dev/kmsg
read user rest < /proc/uptime
[ "$NESTED" = 1 ] && . /etc/nestvm/hypervisor
[ "$IMAGE" ] && . /etc/nestvm/container
${loadModules(base.late)}read late rest < /proc/uptime
echo "$kernel $user $late" > /run/nestvm/marks
`

/** What a level 1 hypervisor sends out for its guests carries its own address; what is to stay inside is dropped. */
const nft = `table ip nestvm {
  set inside { type ipv4_addr; }
  chain forward {
    type filter hook forward priority 0;
    ip saddr @inside ip daddr != 10.0.0.0/8 drop
  }
  chain out {
    type nat hook postrouting priority srcnat;
    ip saddr 10.0.0.0/8 ip daddr != 10.0.0.0/8 masquerade
  }
}
`

/** Mounted by one program rather than three. */
const fstab = `sysfs /sys sysfs defaults 0 0
devpts /dev/pts devpts mode=620,gid=5,ptmxmode=666 0 0
`

/** Sourced by the start script of a guest that is to be a hypervisor: the layer is its first disk. */
const hypervisor = (
  { modules: { base, kvm, layer }, loader, triplet }: Contents,
  disk: string,
) => `${loadModules(base.disk)}n=0
while [ ! -b ${disk} ] && [ $n -lt 500 ]; do n=$((n + 1)); usleep 20000; done
mount -t squashfs -o ro ${disk} /hypervisor
${chooseKvm(kvm)}${loadModules(layer.hypervisor.length > 0 ? ['$kvm', ...layer.hypervisor] : [])}mount -t debugfs debugfs /sys/kernel/debug
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv4/conf/$inside/proxy_arp
echo 0 > /proc/sys/net/ipv4/neigh/$inside/proxy_delay
: > ${hypervisorReady}
[ "$outside" ] && ${layer.network.length > 0 ? `modprobe -a ${layer.network.join(' ')} &&\n  ` : ''}${layerArgv({ loader, triplet }, 'nft').join(' ')} -f /etc/nestvm/nft
`

function loadModules(names: readonly string[]): string {
  return names.length > 0 ? `modprobe -a ${names.join(' ')}\n` : ''
}

function chooseKvm(modules: Contents['modules']['kvm']): string {
  const choices = Object.entries(modules)
  if (choices.length === 0) return ''
  const flags = choices.map(([flag]) => `-e ${flag}`).join(' ')
  const cases = choices.map(([flag, module]) => `${flag}) kvm=${module} ;; `).join('')
  return `case $(grep -o -m 1 -w ${flags} /proc/cpuinfo) in ${cases}esac\n`
}

/**
 * Sourced by the start script where a container is to run, from the archive that brings crun: the image's file system
 * with a writable layer over it, in RAM or on a disk of its own.
 */
export const containerScript = ({
  modules: { base, container },
}: Pick<Contents, 'modules'>) => `${loadModules([...base.disk, ...container.filter((name) => name === 'overlay')])}n=0
while [ ! -b "$IMAGE" ] && [ $n -lt 500 ]; do n=$((n + 1)); usleep 20000; done
cd /run/nestvm && mkdir -p image writable container/rootfs
mount -t squashfs -o ro "$IMAGE" image
if [ "$SCRATCH" ]; then mount -t ext4 "$SCRATCH" writable; else mount -t tmpfs -o size=90% tmpfs writable; fi
mkdir -p writable/upper writable/work
mount -t overlay -o lowerdir=image,upperdir=writable/upper,workdir=writable/work overlay container/rootfs &&
mount -t cgroup2 cgroup2 /sys/fs/cgroup && : > ${containerReady}
cd /
`

type Contents = Pick<Architecture, 'modules' | 'loader' | 'triplet'>

export interface GuestScript {
  path: string
  text: string
  mode: number
}

/** Everything of nestvm's own, and the files under /etc that programs expect. */
export const guestScripts = (contents: Contents): GuestScript[] => [
  ...machineScripts(contents, 'hvc0', '/dev/vda'),
  ...etc('passwd', 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n'),
  ...etc('group', 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n'),
  // No password opens it; keys do.
  { path: 'etc/shadow', text: 'root:*:0:0:99999:7:::\n', mode: 0o600 },
  { path: 'etc/nestvm/nft', text: nft, mode: 0o644 },
  ...etc('shells', '/bin/sh\n'),
  ...etc('fstab', fstab),
  ...etc('hosts', '127.0.0.1 localhost\n'),
  ...etc('resolv.conf', `nameserver ${outsideNetwork.dns}\n`),
  ...etc(
    'os-release',
    'PRETTY_NAME="nestvm guest, from Debian packages"\nNAME="nestvm guest"\nID=nestvm\nID_LIKE=debian\n',
  ),
]

/** Those that depend on the machine's devices: its terminal, and the disk that is its first. */
export const machineScripts = (contents: Contents, terminal: Terminal, disk: string): GuestScript[] => [
  { path: 'etc/inittab', text: inittab(terminal), mode: 0o644 },
  { path: 'etc/nestvm/start', text: start(contents), mode: 0o755 },
  { path: 'etc/nestvm/hypervisor', text: hypervisor(contents, disk), mode: 0o644 },
]

function etc(name: string, text: string): GuestScript[] {
  return [{ path: `etc/${name}`, text, mode: 0o644 }]
}
