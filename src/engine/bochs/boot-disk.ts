import { blockSize, bootSector, sectorSize } from './boot-sector.ts'
import { type Loaded, type MemoryRange, readKernel, startInfo } from './pvh.ts'

/** What a guest boots. */
export interface Boot {
  /** An unpacked kernel: ELF, with a PVH entry. */
  vmlinux: Buffer
  initrd: Buffer
  commandLine: string
  memoryMiB: number
}

/** A disk's contents, piece by piece, and its size in cylinders. */
export interface BootDisk {
  pieces: Buffer[]
  cylinders: number
}

/** Of the disk, for Bochs, whose disks have no other size. */
export const geometry = { heads: 16, sectors: 63 }

/**
 * The disk that a guest boots from. Bochs cannot put a kernel into memory (the optramimage of 3.0 runs on where a block
 * of at most 8 MiB ends, BX_MEM_C::load_RAM): its BIOS reads the first sector of a disk and runs that. This one reads all the rest, and enters the unpacked kernel. The same kernel as packaged, read by
 * isolinux, takes five times as long, most of it to unpack itself.
 */
export function bootDisk({ vmlinux, initrd, commandLine, memoryMiB }: Boot): BootDisk {
  const kernel = readKernel(vmlinux)
  const initrdAddress = align(kernel.end, mebibyte)
  if (initrdAddress + 2 * initrd.length > memoryMiB * mebibyte) throw new RangeError('the memory is too small')
  const info = startInfo({
    address: infoAddress,
    commandLine,
    initrd: { address: initrdAddress, size: initrd.length },
    memory: memoryMap(memoryMiB),
  })
  return layOut(
    [{ address: infoAddress, data: info }, ...kernel.segments, { address: initrdAddress, data: initrd }],
    kernel.entry,
  )
}

/** Below the boot sector's own 1 MiB there is nothing at this address. */
const infoAddress = 0x10000
const mebibyte = 2 ** 20

function layOut(loaded: readonly Loaded[], entry: number): BootDisk {
  let next = 1
  const parts = loaded.map(({ address, data }) => {
    const blocks = Math.ceil(data.length / blockSize)
    const sector = (next * blockSize) / sectorSize
    next += blocks
    return { address, blocks, sector }
  })
  const cylinder = geometry.heads * geometry.sectors * sectorSize
  const size = align(next * blockSize, cylinder)
  const pieces = [bootSector(parts, infoAddress, entry), ...loaded.map(({ data }) => data)].flatMap((data) => [
    data,
    Buffer.alloc(align(data.length, blockSize) - data.length),
  ])
  return { pieces: [...pieces, Buffer.alloc(size - next * blockSize)], cylinders: size / cylinder }
}

/** As Bochs' BIOS has it (bios/rombios.c, int 15h, e820; ACPI_DATA_SIZE in rombios32.c). */
function memoryMap(memoryMiB: number): MemoryRange[] {
  const end = memoryMiB * mebibyte
  const acpi = 0x10000
  return [
    { address: 0, size: 0x9fc00, type: 1 },
    { address: 0x9fc00, size: 0x400, type: 2 },
    { address: 0xe8000, size: 0x18000, type: 2 },
    { address: mebibyte, size: end - acpi - mebibyte, type: 1 },
    { address: end - acpi, size: acpi, type: 3 },
  ]
}

function align(value: number, to: number): number {
  return Math.ceil(value / to) * to
}
