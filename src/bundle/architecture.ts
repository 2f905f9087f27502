import type { Arch } from '../host/arch.ts'

/** What a bundle takes from Debian for one architecture, as data. */
export interface Architecture {
  /** Debian's name of it, which Linux packages carry too. */
  debian: string
  /** Where Debian keeps its libraries: /usr/lib/TRIPLET. */
  triplet: string
  /** The dynamic loader that its programs name. */
  loader: string
  /** The system emulators, in /usr/bin; the first one runs guests of this architecture. */
  emulator: string
  /** Further emulators for guests, where there are smaller ones. */
  guestEmulators: readonly string[]
  emulatorPackages: readonly string[]
  /** Files of /usr/share/qemu and /usr/share/seabios that the machine types in use ask for. */
  firmware: readonly string[]
  kernel: { package: string; suite: string }
  modules: {
    /** In the initrd, by the stage of the start that loads them; `other` waits until something asks for it. */
    base: Record<'network' | 'late' | 'disk' | 'other', readonly string[]>
    /** Added to the initrd where a container runs. */
    container: readonly string[]
    /** In an archive of its own, for guests that mount volumes. */
    volume: readonly string[]
    /** Of KVM, in the layer, by the flag in /proc/cpuinfo that asks for it; none where KVM is built in. */
    kvm: Readonly<Record<string, string>>
    /** In the layer: for hypervisors, for the way out of their guests, and others. */
    layer: Record<'hypervisor' | 'network' | 'other', readonly string[]>
  }
}

const release = 'trixie'
const backports = `${release}-backports`
const oldRelease = 'bookworm'

export const suites: readonly string[] = [release, backports, oldRelease]

/** Run on the host, whatever the guests are. */
export const hostTools = {
  packages: ['qemu-utils', 'squashfs-tools', 'e2fsprogs', 'nftables', 'passt', 'lz4', 'zstd', 'xz-utils'].map(
    fromBackportsIfQemu,
  ),
  programs: ['qemu-img', 'mksquashfs', 'mke2fs', 'nft', 'passt', 'lz4', 'zstd', 'xz'],
}

/** In every guest. */
export const guestPackages = [
  'dropbear-bin',
  'busybox-static',
  'crun',
  'nftables',
  'openssh-sftp-server',
  fromBackportsIfQemu('qemu-utils'),
]

/** In the layer's modules, of every architecture. */
const commonModules = {
  network: ['nft_masq', 'nft_chain_nat'],
  other: [
    // For disks that are attached while it runs.
    ...['virtio_scsi', 'sd_mod'],
    ...['vsock', 'vmw_vsock_virtio_transport', 'vhost_vsock', 'virtiofs', 'virtio_balloon', 'loop', 'veth'],
    ...['bridge', 'br_netfilter', 'nf_tables', 'nft_ct', 'nft_nat', 'nft_redir'],
    ...['nft_compat', 'xt_MASQUERADE', 'xt_conntrack', 'xt_addrtype', 'xt_nat'],
    ...['ip_tables', 'iptable_nat', 'iptable_filter'],
  ],
}

const architectures: Record<Arch, Architecture> = {
  x86_64: {
    debian: 'amd64',
    triplet: 'x86_64-linux-gnu',
    loader: '/lib64/ld-linux-x86-64.so.2',
    emulator: 'qemu-system-x86_64',
    guestEmulators: ['qemu-system-x86_64-microvm'],
    emulatorPackages: [
      ...['qemu-system-x86', 'qemu-system-common', 'qemu-system-data', 'seabios'].map((name) => `${name}/${backports}`),
      'ipxe-qemu',
    ],
    firmware: [
      'bios-256k.bin',
      'bios-microvm.bin',
      'efi-virtio.rom',
      'kvmvapic.bin',
      'linuxboot_dma.bin',
      'multiboot_dma.bin',
      'pvh.bin',
      'qboot.rom',
      'vgabios-stdvga.bin',
    ],
    // Linux 6.1: of Debian's kernels the one with the fewest exits per boot, which is what a nested guest's boot costs.
    kernel: { package: 'linux-image-cloud-amd64', suite: oldRelease },
    modules: {
      base: {
        // virtio calls virtio_ring without naming it among what it depends on.
        network: ['virtio_ring', 'virtio_mmio', 'virtio_net'],
        late: ['virtio_console'],
        disk: ['virtio_blk', 'squashfs'],
        other: ['virtio_rng', 'cpuid'],
      },
      container: ['overlay', 'fuse', 'virtio_pci'],
      volume: ['nfsv4'],
      kvm: { svm: 'kvm_amd', vmx: 'kvm_intel' },
      layer: { hypervisor: ['kvm', 'tun', 'vhost_net'], ...commonModules },
    },
  },
  arm64: {
    debian: 'arm64',
    triplet: 'aarch64-linux-gnu',
    loader: '/lib/ld-linux-aarch64.so.1',
    emulator: 'qemu-system-aarch64',
    guestEmulators: [],
    emulatorPackages: ['qemu-system-arm', 'qemu-system-common', 'qemu-system-data'].map(
      (name) => `${name}/${backports}`,
    ),
    firmware: [],
    // Nested guests take 6.16 (FEAT_NV2), with several processors 7.1.
    kernel: { package: 'linux-image-cloud-arm64', suite: backports },
    modules: {
      base: {
        network: ['virtio_mmio', 'virtio_net'],
        late: [],
        disk: ['virtio_blk', 'squashfs'],
        other: ['virtio_rng'],
      },
      container: ['overlay', 'fuse'],
      volume: ['nfsv4'],
      kvm: {},
      layer: { hypervisor: ['tun', 'vhost_net'], ...commonModules },
    },
  },
}

export function architecture(arch: Arch): Architecture {
  return architectures[arch]
}

/** The same for a kernel that has all of it built in. */
export function withoutModules(contents: Architecture): Architecture {
  const base = { network: [], late: [], disk: [], other: [] }
  const layer = { hypervisor: [], network: [], other: [] }
  return { ...contents, modules: { base, container: [], volume: [], kvm: {}, layer } }
}

/** All of QEMU must come from one suite: its packages depend on each other's exact version. */
function fromBackportsIfQemu(name: string): string {
  return name.startsWith('qemu') ? `${name}/${backports}` : name
}
