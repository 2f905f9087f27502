import { randomBytes } from 'node:crypto'
import { largeMtu, outsideNetwork } from '../bundle/guest/scripts.ts'
import { engineFiles, type Forward, type GuestRam, type QemuDisk, type QemuSpec } from '../engine/qemu/argv.ts'
import { type BridgePort, bridgeGateway } from '../network/bridge.ts'
import { passtFiles } from '../network/passt.ts'
import type { PublishedPort } from '../network/ports.ts'
import { processIdentity } from '../store/process.ts'
import type { Volume } from '../volume/request.ts'
import { forwardName, guestAddress, macAddress, outsideMac } from './address.ts'
import { diskDevice, type HostDisk } from './disk.ts'
import type { Host } from './host.ts'
import { type GuestIdentity, newIdentity } from './initrd.ts'
import { hostName } from './inside.ts'
import type { Place } from './place.ts'
import type { LevelPlan } from './plan.ts'
import type { GuestRecord } from './record.ts'
import { firstVolumePort, volumeAddress, volumeSlots, volumeSocket } from './volume.ts'

/** What decides a guest. */
export interface GuestRequest {
  host: Pick<Host, 'name' | 'engineDir' | 'socketDir' | 'socketPath'>
  plan: LevelPlan
  /** The guest's kernel in the place of Debian's. */
  kernel?: GuestRecord['kernel']
  /** The guest to start it in; absent for the host itself. */
  parent?: GuestRecord
  /** The stack that it belongs to: its outermost guest's id. Absent for that guest itself. */
  stack?: string
  /** The guest is to outlive this process. */
  detach: boolean
  /** In the order in which it sees them. */
  disks: readonly Pick<HostDisk, 'content'>[]
  /** What is to run in it besides its own system, and the disk for what that writes. */
  container?: GuestRecord['container']
  scratch?: string
  network: GuestRecord['network']
  /** At level 1 with a bridged network: a place on the bridge for a guest of this id. */
  bridge?: (id: string) => BridgePort
  ports: readonly PublishedPort[]
  volumes: readonly Volume[]
}

/** A guest that is to be started, with everything decided; writes nothing. */
export function describeGuest(
  request: GuestRequest,
  takenAddresses: ReadonlySet<string>,
  /** Addresses that are not taken and that are forwarded to already. */
  [reusable]: readonly string[] = [],
): { record: GuestRecord; identity: GuestIdentity } {
  const { host, plan, kernel, parent, stack, detach, container, scratch, bridge, ports, volumes } = request
  const network = plan.engine === 'bochs' ? 'none' : request.network
  const id = randomBytes(5).toString('hex')
  const base = parent?.base ?? id
  const bridgePort = parent ? undefined : bridge?.(id)
  const address = reusable ?? guestAddress(id, takenAddresses)
  const disks = request.disks.map(({ content }, index) => ({ content, device: diskDevice(index, plan.engine) }))
  const deviceOf = (content: string) => disks.find((disk) => disk.content === content)?.device
  const identity = newIdentity({
    hostname: hostName(plan.path),
    address,
    nested: plan.nested,
    mtu: parent ? largeMtu : 1500,
    image: container && deviceOf(container.digest),
    scratch: container && scratch && deviceOf(scratch),
    outside: network === 'none' ? undefined : parent ? 'via' : outsideCard(macAddress(address), bridgePort),
  })
  const engineDir = parent ? `/run/nestvm/${id}` : host.engineDir(id)
  const { level, path, arch, accel, accelReason, engine, cpus, memoryMiB, nested, under, cpuModel } = plan
  const record: GuestRecord = {
    ...{ schema: 1, id, path, level, host: host.name, parent: parent?.id, base, stack: stack ?? id },
    ...{ arch, accel, accelReason, engine, cpus, memoryMiB, nested, under, cpuModel, kernel },
    createdAt: new Date().toISOString(),
    phase: 'starting',
    owner: processIdentity(process.pid),
    detached: detach,
    engineDir,
    socketDir: parent ? engineDir : host.socketDir(id),
    sshSocket: host.socketPath(base, forwardName(address)),
    address,
    mac: macAddress(address),
    tap: parent ? `t${id}` : undefined,
    hostKey: identity.host.publicBlob.toString('base64'),
    disks,
    container,
    scratch,
    network,
    networkReason: request.network === network ? undefined : noWayOut,
    bridge: bridgePort,
    ports: [...ports],
    volumes: [...volumes],
  }
  return { record, identity }
}

const noWayOut = 'Bochs has one network card here, which is the way in'

export function qemuSpec(
  record: GuestRecord,
  place: Place<unknown>,
  detach: boolean,
  disks: readonly QemuDisk[],
  ram?: GuestRam,
): QemuSpec {
  return {
    name: record.path,
    arch: record.arch,
    accel: record.accel,
    cpus: record.cpus,
    memoryMiB: record.memoryMiB,
    nested: record.nested,
    under: record.under,
    cpuModel: record.cpuModel,
    counterKhz: place.counterKhz,
    kernel: place.kernel,
    kernelArguments: place.kernelArguments,
    disks,
    hotplug: record.nested,
    ram,
    network: record.tap
      ? { kind: 'tap', interface: record.tap }
      : {
          ...{ kind: 'user', forwards: [sshForward(record)], outside: outsideOf(record) },
          services: Array.from({ length: volumeSlots(record) }, (_, slot) => ({
            ...{ address: volumeAddress, port: firstVolumePort + slot, socket: volumeSocket(record, slot) },
          })),
        },
    mac: record.mac,
    files: engineFiles(record.engineDir, record.socketDir),
    endWithParent: record.level === 1 && !detach,
    sandbox: record.level === 1,
  }
}

/** The way in to a guest's ssh server, at the QEMU of its level 1 guest. */
export function sshForward({ sshSocket, address }: GuestRecord): Forward {
  return { socket: sshSocket, address, port: 22 }
}

/** What follows the base in its initramfs. */
export function archivesFor({ container, volumes }: GuestRecord, place: Place): string[] {
  return [
    ...(container ? [place.containerInitrd] : []),
    ...(place.machineInitrd === undefined ? [] : [place.machineInitrd]),
    ...(volumes.length > 0 ? [place.volumeInitrd] : []),
  ]
}

function outsideCard(mac: string, port: BridgePort | undefined) {
  const { guest, gateway } = outsideNetwork
  const own = port
    ? { address: port.address, gateway: bridgeGateway, mtu: 1500 }
    : { address: guest, gateway, mtu: largeMtu }
  return { mac: outsideMac(mac), ...own }
}

function outsideOf({ network, bridge, engineDir, socketDir, mac }: GuestRecord) {
  if (network === 'none') return undefined
  const way = bridge ? { tap: bridge.tap } : { socket: passtFiles(engineDir, socketDir).socket }
  return { mac: outsideMac(mac), way }
}
