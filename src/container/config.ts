import type { OciProcess } from './process.ts'

/** A directory of the guest that the container sees. */
export interface BindMount {
  source: string
  destination: string
  readOnly: boolean
}

export interface ConfigRequest {
  process: OciProcess
  hostname: string
  privileged: boolean
  /** The guest is a hypervisor, and the container may use it. */
  nested: boolean
  binds: readonly BindMount[]
}

/**
 * An OCI runtime configuration (runtime-spec, config.md) for a container that has a VM to itself: it shares the VM's
 * network, and for the rest sees what docker and podman would show it. There is no seccomp filter: the VM is the wall.
 */
export function ociConfig({ process, hostname, privileged, nested, binds }: ConfigRequest): object {
  const namespaces = ['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type }))
  return {
    ociVersion: '1.0.2',
    process,
    root: { path: 'rootfs' },
    hostname,
    mounts: [...mounts(privileged), ...fromGuest, ...binds.map(bind)],
    linux: {
      namespaces: privileged ? namespaces : [...namespaces, { type: 'cgroup' }],
      resources: { devices: [{ allow: privileged, access: 'rwm' }, ...(privileged ? [] : allowed(nested))] },
      devices: nested && !privileged ? hypervisorDevices : [],
      maskedPaths: privileged ? [] : maskedPaths,
      readonlyPaths: privileged ? [] : readonlyPaths,
    },
  }
}

interface Mount {
  destination: string
  type?: string
  source: string
  options: readonly string[]
}

/** runtime-spec, config-linux.md, "Default Filesystems"; a privileged container sees the guest's own /dev. */
function mounts(privileged: boolean): Mount[] {
  const access = privileged ? 'rw' : 'ro'
  const kept = ['nosuid', 'noexec', 'nodev']
  const dev: Mount[] = privileged
    ? [{ destination: '/dev', type: 'bind', source: '/dev', options: ['rbind', 'rw'] }]
    : [
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755'] },
        {
          ...{ destination: '/dev/pts', type: 'devpts', source: 'devpts' },
          options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
        },
        { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: [...kept, 'mode=1777'] },
        { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: kept },
      ]
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: kept },
    ...dev,
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...kept, access] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: [...kept, 'relatime', access] },
  ]
}

const fromGuest: Mount[] = ['resolv.conf', 'hosts', 'hostname'].map((name) => ({
  ...{ destination: `/etc/${name}`, type: 'bind', source: `/etc/${name}` },
  options: ['rbind', 'rw'],
}))

function bind({ source, destination, readOnly }: BindMount): Mount {
  return { destination, type: 'bind', source, options: ['rbind', readOnly ? 'ro' : 'rw'] }
}

/** Linux's Documentation/admin-guide/devices.txt. */
const hypervisorDevices = [
  { path: '/dev/kvm', type: 'c', major: 10, minor: 232, fileMode: 0o666, uid: 0, gid: 0 },
  { path: '/dev/net/tun', type: 'c', major: 10, minor: 200, fileMode: 0o666, uid: 0, gid: 0 },
  { path: '/dev/vhost-net', type: 'c', major: 10, minor: 238, fileMode: 0o666, uid: 0, gid: 0 },
]

/** null, zero, full, random, urandom, tty, console and ptmx are allowed by the runtime; any may be made. */
function allowed(nested: boolean) {
  const devices = nested ? hypervisorDevices : []
  return [
    { allow: true, type: 'c', access: 'm' },
    { allow: true, type: 'b', access: 'm' },
    ...devices.map(({ type, major, minor }) => ({ allow: true, type, major, minor, access: 'rwm' })),
  ]
}

/** As docker and podman have them. */
const maskedPaths = [
  ...['/proc/acpi', '/proc/asound', '/proc/interrupts', '/proc/kcore', '/proc/keys', '/proc/latency_stats'],
  ...['/proc/timer_list', '/proc/timer_stats', '/proc/sched_debug', '/proc/scsi', '/sys/firmware'],
]
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']
