import { NestvmError } from '../store/error.ts'

export type Arch = 'x86_64' | 'arm64'

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
    /** In the layer: for hypervisors of any kind, for the way out of their guests, one for each kind, and others. */
    layer: Record<'hypervisor' | 'network' | 'amd' | 'intel' | 'other', readonly string[]>
  }
}

const release = 'trixie'
const backports = `${release}-backports`
/** Linux 6.1: of Debian's kernels the one with the fewest exits per boot, which is what a nested guest's boot costs. */
const kernelSuite = 'bookworm'

export const suites: readonly string[] = [...new Set([release, backports, kernelSuite])]

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

const architectures: Record<string, Architecture> = {
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
    kernel: { package: 'linux-image-cloud-amd64', suite: kernelSuite },
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
      layer: {
        hypervisor: ['kvm', 'tun', 'vhost_net'],
        network: ['nft_masq', 'nft_chain_nat'],
        amd: ['kvm_amd'],
        intel: ['kvm_intel'],
        other: [
          // For disks that are attached while it runs.
          ...['virtio_scsi', 'sd_mod'],
          ...['vsock', 'vmw_vsock_virtio_transport', 'vhost_vsock', 'virtiofs', 'virtio_balloon', 'loop', 'veth'],
          ...['bridge', 'br_netfilter', 'nf_tables', 'nft_ct', 'nft_nat', 'nft_redir'],
          ...['nft_compat', 'xt_MASQUERADE', 'xt_conntrack', 'xt_addrtype', 'xt_nat'],
          ...['ip_tables', 'iptable_nat', 'iptable_filter'],
        ],
      },
    },
  },
}

/** Throws `UNSUPPORTED_ARCH`. */
export function architecture(arch: Arch): Architecture {
  const found = architectures[arch]
  if (found !== undefined) return found
  throw new NestvmError('UNSUPPORTED_ARCH', `there is no bundle for ${arch} yet`, {
    details: { arch, supported: Object.keys(architectures) },
  })
}

/** All of QEMU must come from one suite: its packages depend on each other's exact version. */
function fromBackportsIfQemu(name: string): string {
  return name.startsWith('qemu') ? `${name}/${backports}` : name
}
