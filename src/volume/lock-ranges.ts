/** A byte range that is locked; `end` is the first byte behind it. */
export interface LockedRange<Owner> {
  owner: Owner
  exclusive: boolean
  start: bigint
  end: bigint
}

/** The lock of somebody else that stands in the way, if any. */
export function conflicting<O>(locked: readonly LockedRange<O>[], wanted: LockedRange<O>): LockedRange<O> | undefined {
  return locked.find(
    (other) =>
      other.owner !== wanted.owner &&
      (other.exclusive || wanted.exclusive) &&
      other.start < wanted.end &&
      wanted.start < other.end,
  )
}

/** With the range locked; what its owner had there before is replaced, as in fcntl(2). */
export function lock<O>(locked: readonly LockedRange<O>[], wanted: LockedRange<O>): LockedRange<O>[] {
  const rest = unlock(locked, wanted)
  const touches = (other: LockedRange<O>) =>
    other.owner === wanted.owner &&
    other.exclusive === wanted.exclusive &&
    (other.end === wanted.start || other.start === wanted.end)
  const neighbours = rest.filter(touches)
  const merged = { ...wanted }
  for (const { start, end } of neighbours) {
    if (start < merged.start) merged.start = start
    if (end > merged.end) merged.end = end
  }
  return [...rest.filter((other) => !touches(other)), merged]
}

/** Without the part of the owner's locks that is in the range. */
export function unlock<O>(
  locked: readonly LockedRange<O>[],
  { owner, start, end }: Pick<LockedRange<O>, 'owner' | 'start' | 'end'>,
): LockedRange<O>[] {
  return locked.flatMap((other) => {
    if (other.owner !== owner || other.start >= end || other.end <= start) return [other]
    const parts = [
      { ...other, end: start },
      { ...other, start: end },
    ]
    return parts.filter((part) => part.start < part.end)
  })
}
