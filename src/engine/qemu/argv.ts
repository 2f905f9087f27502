import type { Arch } from '../../host/arch.ts'
import { type Accel, architectures } from '../architecture.ts'

/** Everything that decides a guest's QEMU command. Paths are of the machine that QEMU runs on. */
export interface QemuSpec {
  name: string
  arch: Arch
  accel: Accel
  cpus: number
  memoryMiB: number
  nested: boolean
  under?: Under
  /** A named processor, with its features, in the place of all that there is. */
  cpuModel?: string
  /** The rate of the clock that the emulator shows the guest, where known. */
  counterKhz: number | undefined
  kernel: string
  /** Added to its command line. */
  kernelArguments?: string
  /** In the order in which the guest sees them. */
  disks: readonly QemuDisk[]
  /** Let disks be attached while it runs. */
  hotplug: boolean
  /** Keep its memory in this file, rather than in memory of QEMU's own. */
  ram?: GuestRam
  /** Wait for a state rather than boot, and keep what its logs hold; what leads out may come later than QEMU. */
  restored?: boolean
  network: UserNetwork | { kind: 'tap'; interface: string }
  mac: string
  files: EngineFiles
  /** End QEMU when the process that started it ends. */
  endWithParent: boolean
  /** Forbid QEMU, by seccomp, what it does not need: to start programs or to change its identity. */
  sandbox: boolean
}

/** Of a level 1 guest. */
export interface UserNetwork {
  kind: 'user'
  /** Unix sockets of the host that lead to a port of a guest. */
  forwards: readonly Forward[]
  outside?: { mac: string; way: WayOut }
  /** Unix sockets that a port of the host's end of the network leads to. */
  services: readonly { address: string; port: number; socket: string }[]
}

type WayOut = { socket: string } | { tap: string }

/**
 * A hypervisor around the machine that QEMU runs on which does not run every guest: ACRN's Service VM runs those with
 * `-cpu host` as it is and `-nographic` (ACRN, "Enable Nested Virtualization").
 */
export type Under = 'acrn'

export interface Forward {
  socket: string
  address: string
  port: number
}

export interface GuestRam {
  path: string
  /** What the guest writes goes into the file; else it stays QEMU's own, and the file as it is. */
  shared: boolean
}

export interface QemuDisk {
  path: string
  readOnly: boolean
  /** It is a disk of the machine that QEMU runs on, which is not to keep a copy of it in its memory. */
  device: boolean
}

/** The files of one engine, on the machine that it runs on. */
export interface EngineFiles {
  /** QMP, or Firecracker's API; and the guest's console. */
  qmpSocket: string
  apiSocket: string
  consoleSocket: string
  /** What QEMU says, what the kernel says, what was written to the guest's console. */
  engineLog: string
  kernelLog: string
  consoleLog: string
  /** What QEMU tells of itself, such as why it ends (QMP's events), and the file that it takes the wish for that from. */
  events: string
  eventsInput: string
  /** What a detached command writes, and its exit status once it has ended. */
  output: string
  exitStatus: string
  initrd: string
  pidFile: string
}

export function engineFiles(dir: string, socketDir = dir): EngineFiles {
  return {
    qmpSocket: `${socketDir}/qmp`,
    apiSocket: `${socketDir}/api`,
    consoleSocket: `${socketDir}/console`,
    engineLog: `${dir}/engine.log`,
    kernelLog: `${dir}/kernel.log`,
    consoleLog: `${dir}/console.log`,
    events: `${dir}/events.log`,
    eventsInput: `${dir}/events.in`,
    output: `${dir}/output.log`,
    exitStatus: `${dir}/exit-status`,
    initrd: `${dir}/initrd`,
    pidFile: `${dir}/engine.pid`,
  }
}

/**
 * The guest's ends of the ports that `output` and `exitStatus` are the host's ends of, as shell patterns: Linux numbers
 * them by the virtio device's place among all, and then by the port's.
 */
export const guestPorts = { output: '/dev/vport*p1', exitStatus: '/dev/vport*p2' }

/** The arguments after QEMU's own command (`program -L share`). */
export function qemuArguments(spec: QemuSpec): string[] {
  const arch = architectures[spec.arch]
  const { files } = spec
  const append = spec.restored ? ',append=on' : ''
  let devices = 0
  const device = (name: string, options: string) => {
    const place = arch.place ? [arch.place(devices++)] : []
    return ['-device', [`${name}-${arch.virtio}`, options, ...place].join(',')]
  }
  return [
    ...['-name', `nestvm-${spec.name},debug-threads=on`],
    ...[
      '-nodefaults',
      '-no-user-config',
      ...(spec.under === 'acrn' ? ['-nographic'] : ['-display', 'none']),
      '-no-reboot',
    ],
    ...['-machine', `${arch.machine(spec.accel, spec.nested)},memory-backend=ram`],
    ...['-object', ramObject(spec.memoryMiB, spec.ram)],
    ...(arch.firmware === undefined ? [] : ['-bios', arch.firmware]),
    ...['-accel', spec.accel === 'tcg' ? 'tcg,thread=multi,tb-size=512' : 'kvm'],
    ...['-cpu', processor(spec)],
    ...['-smp', String(spec.cpus), '-m', `${spec.memoryMiB}M`],
    ...(spec.restored ? ['-S', '-incoming', 'defer'] : bootArguments(spec)),
    ...spec.disks.flatMap((each, index) => disk(each, index, device)),
    ...(spec.hotplug ? device('virtio-scsi', `id=${hotplugBus},num_queues=1`) : []),
    ...network(spec, device),
    ...['-chardev', `file,id=kernel,path=${value(files.kernelLog)}${append}`, '-serial', 'chardev:kernel'],
    ...device('virtio-serial', 'max_ports=4'),
    ...chardevSocket('console', files.consoleSocket, `,logfile=${value(files.consoleLog)},logappend=on`),
    ...['-device', 'virtconsole,chardev=console'],
    ...port('output', `${value(files.output)}${append}`),
    ...port('exit', `${value(files.exitStatus)}${append}`),
    ...qmp(files),
    ...['-chardev', `file,id=events,path=${value(files.events)},input-path=${value(files.eventsInput)}`],
    ...['-object', 'monitor-qmp,id=events,chardev=events'],
    ...(spec.endWithParent ? endWithParent : []),
    ...(spec.sandbox ? sandbox : []),
  ]
}

/** A named one is had whole or not at all; where the guest was before, that has been looked at. */
function processor({ under, cpuModel, restored, arch, accel, nested }: QemuSpec): string {
  if (under === 'acrn') return 'host'
  if (cpuModel === undefined) return architectures[arch].cpu(accel, nested)
  return restored ? cpuModel : `${cpuModel},enforce`
}

/** The ways in to a QEMU, and what tells whose it is. */
export function qmp({ qmpSocket, pidFile }: EngineFiles): string[] {
  return [...chardevSocket('qmp', qmpSocket), '-object', 'monitor-qmp,id=qmp,chardev=qmp', '-pidfile', pidFile]
}

export const endWithParent = ['-run-with', 'exit-with-parent=on']
export const sandbox = ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny']

/** By one name wherever it is: a state is loaded by the names of what is in it. */
function ramObject(memoryMiB: number, ram: GuestRam | undefined): string {
  if (!ram) return `memory-backend-ram,id=ram,size=${memoryMiB}M`
  const { path, shared } = ram
  return `memory-backend-file,id=ram,size=${memoryMiB}M,mem-path=${value(path)},share=${shared ? 'on' : 'off'}`
}

function bootArguments(spec: QemuSpec): string[] {
  return ['-kernel', spec.kernel, '-initrd', spec.files.initrd, '-append', kernelArguments(spec)]
}

function kernelArguments({ arch, accel, nested, counterKhz, kernelArguments: more }: QemuSpec): string {
  const { console, kernelArguments: always, engineArguments, hypervisorArguments, emulatedClock } = architectures[arch]
  const own = engineArguments.qemu ? [engineArguments.qemu] : []
  const clock = accel === 'tcg' && counterKhz && emulatedClock ? [emulatedClock(counterKhz)] : []
  const hypervisor = nested && hypervisorArguments ? [hypervisorArguments] : []
  // `quiet` first: an early console prints all that was said before it, by the level that holds at its place.
  return ['quiet', console, always, ...own, ...hypervisor, ...clock, ...(more ? [more] : [])].join(' ')
}

type Device = (name: string, options: string) => string[]

function disk({ path, readOnly, device: isDevice }: QemuDisk, index: number, device: Device): string[] {
  const id = `disk${index}`
  const cache = isDevice ? 'none' : 'writeback'
  // What the guest gives up of a disk that it writes takes no space any more.
  const access = `readonly=${readOnly ? 'on' : 'off,discard=unmap'},cache=${cache},file.locking=off`
  const drive = `file=${value(path)},format=raw,if=none,id=${id},node-name=${diskNode(index)},${access}`
  return ['-drive', drive, ...device('virtio-blk', `drive=${id}`)]
}

/** What QMP knows a disk by that a guest has from its start; its number is its place among them. */
export function diskNode(index: number): string {
  return `disk${index}-node`
}

/** What QMP's `blockdev-add` and `device_add` take to attach a disk at run time, as the bus's unit number `lun`. */
export function hotplugArguments({ path, readOnly, device }: QemuDisk, lun: number) {
  const { node, id } = hotplugNames(lun)
  const driver = device ? 'host_device' : 'file'
  const discard = readOnly ? {} : { discard: 'unmap' }
  const file = { driver, filename: path, locking: 'off', cache: { direct: device, 'no-flush': false } }
  return {
    blockdev: { driver: 'raw', 'node-name': node, 'read-only': readOnly, ...discard, file: { ...file, ...discard } },
    device: { driver: 'scsi-hd', id, bus: `${hotplugBus}.0`, lun, drive: node },
  }
}

/** By which a disk that was attached can be taken off. */
export function hotplugNames(lun: number): { node: string; id: string } {
  return { node: `hot${lun}`, id: `hot${lun}-device` }
}

const hotplugBus = 'hot'

function network({ network: net, mac, restored }: QemuSpec, device: Device): string[] {
  const card = (id: string, address: string) => device('virtio-net', `netdev=${id},mac=${address}`)
  if (net.kind === 'tap') {
    return ['-netdev', `tap,id=net,ifname=${net.interface},script=no,downscript=no,vhost=on`, ...card('net', mac)]
  }
  const inside = [...userNetwork(net), ...card('net', mac)]
  if (!net.outside) return inside
  return [...inside, '-netdev', wayOut(net.outside.way, restored), ...card('outside', net.outside.mac)]
}

/**
 * The network between guests, `net`. restrict=on: through this one a guest reaches nothing of the host, nor beyond it;
 * connections only come in. A unix socket rather than a port: only its owner can open it, and no two guests can want the
 * same.
 */
export function userNetwork({ forwards, services }: Pick<UserNetwork, 'forwards' | 'services'>): string[] {
  const lead = services.map(
    ({ address, port }, index) => `,guestfwd=tcp:${address}:${port}-chardev:${serviceName(index)}`,
  )
  const sockets = services.flatMap(({ socket }, index) => chardevSocket(serviceName(index), socket))
  const range = 'net=10.0.0.0/8,host=10.0.0.1,dns=10.0.0.3,dhcpstart=10.255.255.1'
  return [...sockets, '-netdev', `user,id=net,${range},restrict=on${forwards.map(forward).join('')}${lead.join('')}`]
}

/** QEMU's name of what leads to a service of the host. */
export function serviceName(index: number): string {
  return `service${index}`
}

/** What leads a level 1 guest out, `outside`. */
function wayOut(way: WayOut, restored = false): string {
  return 'tap' in way
    ? `tap,id=outside,ifname=${way.tap},script=no,downscript=no`
    : `stream,id=outside,server=off,addr.type=unix,addr.path=${value(way.socket)}${restored ? ',reconnect-ms=20' : ''}`
}

function forward({ socket, address, port }: Forward): string {
  return `,hostfwd=unix:${value(socket)}-${address}:${port}`
}

/** The guest finds it by its number, which is its place among the ports, the console being number 0. */
function port(id: string, file: string): string[] {
  return ['-chardev', `file,id=${id},path=${file}`, '-device', `virtserialport,chardev=${id},name=nestvm.${id}`]
}

function chardevSocket(id: string, path: string, more = ''): string[] {
  return ['-chardev', `socket,id=${id},path=${value(path)},server=on,wait=off${more}`]
}

/** In a list of options a comma ends a value; two are one of its own (QEMU's qemu_opts_parse). */
function value(text: string): string {
  return text.replaceAll(',', ',,')
}
