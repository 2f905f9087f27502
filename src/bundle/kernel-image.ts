/** How the kernel proper is packed inside its image; `none` is one that loaders take as it stands. */
export type Compression = 'lz4' | 'zstd' | 'xz' | 'gzip' | 'none'

export interface Payload {
  data: Buffer
  compression: Compression
  /** Bytes after unpacking, where the image tells. */
  size?: number
}

/**
 * The kernel of an image as distributions package it, for loaders that enter it without firmware: of an x86 bzImage the
 * packed ELF file; an arm64 Image is what such loaders take. Undefined when it is neither.
 */
export function kernelPayload(image: Buffer): Payload | undefined {
  return isArm64Image(image) ? { data: image, compression: 'none', size: image.length } : bzImagePayload(image)
}

/** The magic at byte 56 (Linux Documentation/arch/arm64/booting.rst). */
function isArm64Image(image: Buffer): boolean {
  return image.length > 64 && image.toString('latin1', 56, 60) === 'ARMd'
}

/**
 * The packed kernel of an x86 bzImage, found by the boot protocol's header (Linux Documentation/arch/x86/boot.rst:
 * setup_sects at 0x1f1, the magic `HdrS` at 0x202, version at 0x206, payload_offset and payload_length at 0x248
 * from protocol 2.08 on, counted from the protected-mode code). Undefined when it is not such an image.
 */
function bzImagePayload(image: Buffer): Payload | undefined {
  if (image.length < 0x250 || image.toString('latin1', 0x202, 0x206) !== 'HdrS') return undefined
  if (image.readUInt16LE(0x206) < 0x208) return undefined
  // 0 stands for 4, for the sake of very old loaders; the boot sector comes on top.
  const setupSectors = (image[0x1f1] || 4) + 1
  const start = setupSectors * 512 + image.readUInt32LE(0x248)
  const end = start + image.readUInt32LE(0x24c)
  if (start >= end || end > image.length) return undefined
  return trimmed(image.subarray(start, end))
}

/** All but gzip, which has it already, get the unpacked size appended by the kernel's build (scripts/Makefile.lib). */
function trimmed(data: Buffer): Payload | undefined {
  const compression = compressionOf(data)
  if (compression === undefined) return undefined
  if (compression === 'none') return { data, compression, size: data.length }
  const size = data.readUInt32LE(data.length - 4)
  if (compression === 'gzip') return { data, compression, size }
  return { data: data.subarray(0, -4), compression, size }
}

const magics: readonly [Compression, string][] = [
  ['lz4', '02214c18'],
  ['zstd', '28b52ffd'],
  ['xz', 'fd377a58'],
  ['gzip', '1f8b08'],
  ['none', '7f454c46'],
]

function compressionOf(data: Buffer): Compression | undefined {
  return magics.find(([, magic]) => data.toString('hex', 0, magic.length / 2) === magic)?.[0]
}
