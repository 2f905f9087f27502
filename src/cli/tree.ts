/** Paths in the order of a tree, each with its last name behind the lines that lead to it. */
export function treeOf(paths: readonly string[]): { path: string; label: string }[] {
  const sorted = paths.map((path) => path.split('/')).sort(byParts)
  return sorted.map((parts, row) => {
    const below = sorted.slice(row + 1)
    // At each level: whether another one follows beside this path's name.
    const goesOn = parts.map((_, depth) => followed(parts.slice(0, depth), below, depth))
    const [, ...lines] = goesOn.slice(0, -1).map((more) => (more ? '│  ' : '   '))
    const branch = parts.length === 1 ? '' : goesOn.at(-1) ? '├─ ' : '└─ '
    return { path: parts.join('/'), label: `${lines.join('')}${branch}${parts.at(-1)}` }
  })
}

function followed(around: readonly string[], below: readonly string[][], depth: number): boolean {
  const inside = below.filter((other) => around.every((part, index) => other[index] === part))
  return inside.some((other) => other.length === depth + 1)
}

/** Name by name: a hyphen comes before a slash. */
function byParts(a: readonly string[], b: readonly string[]): number {
  const differs = a.findIndex((part, index) => part !== b[index])
  if (differs === -1) return a.length - b.length
  return (a[differs] ?? '') < (b[differs] ?? '') ? -1 : 1
}
