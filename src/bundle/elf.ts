import { access, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { NestvmError } from '../store/error.ts'

/**
 * The shared libraries that the programs need, directly and through each other: name as the loader asks for it
 * (`libc.so.6`) to file. Read from the ELF headers rather than asked of the loader, so that it also works for
 * programs of another architecture. Libraries opened by name at run time are not seen.
 */
export async function libraryClosure(
  programs: readonly string[],
  libraryDirs: readonly string[],
): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  const queue = [...programs]
  for (let path = queue.shift(); path !== undefined; path = queue.shift()) {
    for (const name of neededLibraries(await readFile(path))) {
      if (found.has(name)) continue
      const library = await findLibrary(name, libraryDirs)
      if (library === undefined) {
        throw new NestvmError('LIBRARY_MISSING', `${path} needs ${name}, which is in none of the packages`, {
          details: { program: path, library: name },
        })
      }
      found.set(name, library)
      queue.push(library)
    }
  }
  return found
}

/** The DT_NEEDED names of a 64-bit little-endian ELF file; none for a static program. See elf(5). */
export function neededLibraries(elf: Buffer): string[] {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2 || elf[5] !== 1) return []
  const segments = programHeaders(elf)
  const dynamic = segments.find((segment) => segment.type === PT_DYNAMIC)
  if (dynamic === undefined) return []

  const names: number[] = []
  let strings = 0
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.size; at += 16) {
    const tag = Number(elf.readBigInt64LE(at))
    const value = Number(elf.readBigUInt64LE(at + 8))
    if (tag === DT_NULL) break
    if (tag === DT_NEEDED) names.push(value)
    if (tag === DT_STRTAB) strings = fileOffset(segments, value)
  }
  return names.map((name) => elf.toString('latin1', strings + name, elf.indexOf(0, strings + name)))
}

const PT_LOAD = 1
const PT_DYNAMIC = 2
const DT_NULL = 0
const DT_NEEDED = 1
const DT_STRTAB = 5

interface Segment {
  type: number
  offset: number
  address: number
  size: number
}

function programHeaders(elf: Buffer): Segment[] {
  const start = Number(elf.readBigUInt64LE(32))
  const entrySize = elf.readUInt16LE(54)
  return Array.from({ length: elf.readUInt16LE(56) }, (_, index) => {
    const at = start + index * entrySize
    return {
      type: elf.readUInt32LE(at),
      offset: Number(elf.readBigUInt64LE(at + 8)),
      address: Number(elf.readBigUInt64LE(at + 16)),
      size: Number(elf.readBigUInt64LE(at + 32)),
    }
  })
}

function fileOffset(segments: readonly Segment[], address: number): number {
  const segment = segments.find(
    ({ type, address: start, size }) => type === PT_LOAD && address >= start && address < start + size,
  )
  return segment === undefined ? 0 : address - segment.address + segment.offset
}

async function findLibrary(name: string, dirs: readonly string[]): Promise<string | undefined> {
  for (const dir of dirs) {
    const path = join(dir, name)
    if (await exists(path)) return path
  }
  return undefined
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
