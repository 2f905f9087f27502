import { type Accel, type Arch, architectures } from '../architecture.ts'

/** Everything that decides a guest's QEMU command. Paths are of the machine that QEMU runs on. */
export interface QemuSpec {
  name: string
  arch: Arch
  accel: Accel
  cpus: number
  memoryMiB: number
  nested: boolean
  /** The rate of the clock that the emulator shows the guest, where known. */
  counterKhz: number | undefined
  kernel: string
  /** Read-only disks, in the order in which the guest sees them. */
  disks: readonly { path: string }[]
  network: { kind: 'user'; socket: string; address: string } | { kind: 'tap'; interface: string }
  mac: string
  files: EngineFiles
  /** End QEMU when the process that started it ends. */
  endWithParent: boolean
  /** Forbid QEMU, by seccomp, what it does not need: to start programs or to change its identity. */
  sandbox: boolean
}

/** The files of one engine, on the machine that it runs on. */
export interface EngineFiles {
  /** QMP, and the guest's console. */
  qmpSocket: string
  consoleSocket: string
  /** What QEMU says, what the kernel says, what was written to the guest's console. */
  engineLog: string
  kernelLog: string
  consoleLog: string
  /** What a detached command writes, and its exit status once it has ended. */
  output: string
  exitStatus: string
  initrd: string
  pidFile: string
}

export function engineFiles(dir: string, socketDir = dir): EngineFiles {
  return {
    qmpSocket: `${socketDir}/qmp`,
    consoleSocket: `${socketDir}/console`,
    engineLog: `${dir}/engine.log`,
    kernelLog: `${dir}/kernel.log`,
    consoleLog: `${dir}/console.log`,
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
  const device = (name: string, options: string) => ['-device', `${name}-${arch.virtio},${options}`]
  return [
    ...['-name', `nestvm-${spec.name},debug-threads=on`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-machine', arch.machine(spec.accel)],
    ...(arch.firmware === undefined ? [] : ['-bios', arch.firmware]),
    ...['-accel', spec.accel === 'tcg' ? 'tcg,thread=multi,tb-size=512' : 'kvm'],
    ...['-cpu', arch.cpu(spec.accel, spec.nested)],
    ...['-smp', String(spec.cpus), '-m', `${spec.memoryMiB}M`],
    ...['-kernel', spec.kernel, '-initrd', files.initrd],
    ...['-append', kernelArguments(spec)],
    ...spec.disks.flatMap(({ path }, index) => disk(path, index, device)),
    ...network(spec, device),
    ...['-chardev', `file,id=kernel,path=${value(files.kernelLog)}`, '-serial', 'chardev:kernel'],
    ...device('virtio-serial', 'max_ports=4'),
    ...chardevSocket('console', files.consoleSocket, `,logfile=${value(files.consoleLog)},logappend=on`),
    ...['-device', 'virtconsole,chardev=console'],
    ...port('output', files.output),
    ...port('exit', files.exitStatus),
    ...chardevSocket('qmp', files.qmpSocket),
    ...['-object', 'monitor-qmp,id=qmp,chardev=qmp', '-pidfile', files.pidFile],
    ...(spec.endWithParent ? ['-run-with', 'exit-with-parent=on'] : []),
    ...(spec.sandbox ? ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'] : []),
  ]
}

function kernelArguments({ arch, accel, counterKhz }: QemuSpec): string {
  const { console, kernelArguments: always, emulatedClock } = architectures[arch]
  const clock = accel === 'tcg' && counterKhz ? [emulatedClock(counterKhz)] : []
  return [console, always, ...clock].join(' ')
}

type Device = (name: string, options: string) => string[]

function disk(path: string, index: number, device: Device): string[] {
  const id = `disk${index}`
  const drive = `file=${value(path)},format=raw,if=none,id=${id},readonly=on,cache=unsafe,file.locking=off`
  return ['-drive', drive, ...device('virtio-blk', `drive=${id}`)]
}

/**
 * restrict=on: a guest reaches nothing of the host, nor beyond it; only the ssh server's connections come in.
 * A unix socket rather than a port: only its owner can open it, and no two guests can want the same.
 */
function network({ network: net, mac }: QemuSpec, device: Device): string[] {
  const backend =
    net.kind === 'user'
      ? `user,id=net,net=10.0.0.0/8,host=10.0.0.1,dns=10.0.0.3,dhcpstart=10.255.255.1,restrict=on,hostfwd=unix:${value(net.socket)}-${net.address}:22`
      : `tap,id=net,ifname=${net.interface},script=no,downscript=no,vhost=on`
  return ['-netdev', backend, ...device('virtio-net', `netdev=net,mac=${mac}`)]
}

/** The guest finds it by its number, which is its place among the ports, the console being number 0. */
function port(id: string, path: string): string[] {
  return ['-chardev', `file,id=${id},path=${value(path)}`, '-device', `virtserialport,chardev=${id},name=nestvm.${id}`]
}

function chardevSocket(id: string, path: string, more = ''): string[] {
  return ['-chardev', `socket,id=${id},path=${value(path)},server=on,wait=off${more}`]
}

/** In a list of options a comma ends a value; two are one of its own (QEMU's qemu_opts_parse). */
function value(text: string): string {
  return text.replaceAll(',', ',,')
}
