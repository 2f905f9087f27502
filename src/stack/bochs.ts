import { readFile, writeFile } from 'node:fs/promises'
import { bootDisk } from '../engine/bochs/boot-disk.ts'
import { bochsCommand } from '../engine/bochs/command.ts'
import { bochsKernelArguments, configuration } from '../engine/bochs/configuration.ts'
import { bochsFiles } from '../engine/bochs/files.ts'
import type { QemuSpec } from '../engine/qemu/argv.ts'
import type { Launch } from './launch.ts'
import type { Place } from './place.ts'
import type { GuestRecord } from './record.ts'

/** How Bochs is started, in a place for that. */
export function bochsStart(
  record: Pick<GuestRecord, 'engineDir' | 'socketDir'>,
  place: Pick<Place, 'qemu' | 'kernel' | 'bochs'>,
  spec: QemuSpec,
): Pick<Launch, 'command' | 'env' | 'prepare'> {
  const { bochs } = place
  const { network } = spec
  if (!bochs || network.kind !== 'user') throw new RangeError('Bochs runs level 1 guests of a host that has it')
  const own = { ...spec, network, dir: record.engineDir, socketDir: record.socketDir }
  const command = bochsCommand(own, { ...bochs.programs, qemu: place.qemu })
  const prepare = async () => {
    const files = bochsFiles(own.dir, own.socketDir)
    const { kernelLog, initrd } = spec.files
    const disk = bootDisk({
      vmlinux: await readFile(place.kernel),
      initrd: await readFile(initrd),
      commandLine: bochsKernelArguments,
      memoryMiB: spec.memoryMiB,
    })
    await writeFile(files.bootDisk, disk.pieces, { mode: 0o600 })
    const { cylinders } = disk
    const { memoryMiB, disks } = spec
    const machine = {
      ...{ firmware: bochs.firmware, memoryMiB, bootDisk: files.bootDisk, cylinders },
      disks,
      kernelLog,
    }
    await writeFile(files.configuration, configuration({ ...machine, mac: spec.mac }), { mode: 0o600 })
    // The log of a kernel that says nothing is empty, not absent.
    await writeFile(kernelLog, '')
  }
  return { command, env: bochs.env, prepare }
}
